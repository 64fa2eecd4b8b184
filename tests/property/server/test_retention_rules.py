# SPDX-License-Identifier: Apache-2.0
"""Laws of the retention rules, on any tags, rules and moment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina.server.retention import (
    EVERY,
    RetentionRule,
    Rules,
    TagFact,
    UntaggedFact,
    Verdict,
)
from lamina.start.record import replace

NOW = 1000.0
MOMENT = st.integers(0, int(NOW)).map(float)
PATTERN = st.sampled_from(["**", "*", "a*", "v*", "a", "b"])
CONDITION = st.none() | st.integers(0, 1200).map(float)

tags = st.lists(
    st.builds(
        TagFact,
        st.sampled_from(["a", "ab", "b", "v1", "v2", "v3", "latest", "x"]),
        st.sampled_from(["sha256:1", "sha256:2", "sha256:3"]),
        MOMENT,
        MOMENT,
    ),
    max_size=8,
    unique_by=lambda fact: fact.tag,
)
untagged = st.lists(
    st.builds(UntaggedFact, st.sampled_from(["sha256:7", "sha256:8", "sha256:9"]), MOMENT, MOMENT),
    unique_by=lambda fact: fact.digest,
)
conditions = st.builds(
    RetentionRule,
    repositories=st.sampled_from(["**", "r", "other"]),
    tags=st.tuples(PATTERN),
    exclude_tags=st.just(()) | st.tuples(PATTERN),
    keep_newest=st.none() | st.integers(0, 5),
    keep_pushed=CONDITION,
    keep_pulled=CONDITION,
    untagged_after=CONDITION,
)
protections = st.builds(
    RetentionRule,
    repositories=st.sampled_from(["**", "r"]),
    tags=st.tuples(PATTERN),
    protect=st.just(True),
)
rules = st.lists(conditions | protections, max_size=4)


def gone(verdicts: tuple[Verdict, ...]) -> set[tuple[str, str]]:
    return {(verdict.tag, verdict.digest) for verdict in verdicts if not verdict.keep}


@given(tags, untagged, rules)
def test_each_fact_has_one_verdict_and_its_order_does_not_matter(
    facts: list[TagFact], orphans: list[UntaggedFact], given_rules: list[RetentionRule]
) -> None:
    judged = Rules(given_rules).judge("r", facts, orphans, now=NOW)
    assert len(judged) == len(facts) + len(orphans)
    assert {verdict.tag for verdict in judged if verdict.tag} == {fact.tag for fact in facts}
    again = Rules(given_rules).judge("r", facts[::-1], orphans[::-1], now=NOW)
    assert again == judged
    assert all(verdict.why for verdict in judged)


@given(tags, untagged, rules)
def test_protection_in_front_keeps_everything(
    facts: list[TagFact], orphans: list[UntaggedFact], given_rules: list[RetentionRule]
) -> None:
    shield = RetentionRule("**", protect=True)
    assert gone(Rules([shield, *given_rules]).judge("r", facts, orphans, now=NOW)) == set()


@given(tags, untagged, rules, st.sampled_from(["keep_newest", "keep_pushed", "keep_pulled"]))
def test_more_patience_never_removes_more(
    facts: list[TagFact],
    orphans: list[UntaggedFact],
    given_rules: list[RetentionRule],
    key: str,
) -> None:
    softer = [
        replace(rule, **{key: getattr(rule, key) + 2}) if getattr(rule, key) is not None else rule
        for rule in given_rules
    ]
    before = gone(Rules(given_rules).judge("r", facts, orphans, now=NOW))
    assert gone(Rules(softer).judge("r", facts, orphans, now=NOW)) <= before


@given(tags, st.integers(0, 10))
def test_keep_newest_keeps_exactly_the_newest(facts: list[TagFact], number: int) -> None:
    rule = RetentionRule("**", keep_newest=number)
    judged = Rules([rule]).judge("r", facts, now=NOW)
    kept = [verdict.tag for verdict in judged if verdict.keep]
    assert len(kept) == min(number, len(facts))
    pushed = {fact.tag: fact.pushed for fact in facts}
    left = [pushed[tag] for tag in kept]
    went = [pushed[verdict.tag] for verdict in judged if not verdict.keep]
    assert not left or not went or min(left) >= max(went)


@given(tags, untagged, rules)
def test_what_stays_would_stay_again(
    facts: list[TagFact], orphans: list[UntaggedFact], given_rules: list[RetentionRule]
) -> None:
    """A second run at the same moment removes nothing."""
    judge = Rules(given_rules)
    first = gone(judge.judge("r", facts, orphans, now=NOW))
    rest = [fact for fact in facts if (fact.tag, fact.digest) not in first]
    others = [fact for fact in orphans if ("", fact.digest) not in first]
    assert gone(judge.judge("r", rest, others, now=NOW)) == set()


@given(tags, untagged, rules)
def test_rules_that_do_not_concern_a_repository_remove_nothing_there(
    facts: list[TagFact], orphans: list[UntaggedFact], given_rules: list[RetentionRule]
) -> None:
    judge = Rules(given_rules)
    if not judge.concern("r"):
        assert gone(judge.judge("r", facts, orphans, now=NOW)) == set()
    away = [replace(rule, exclude_repositories=EVERY) for rule in given_rules]
    assert not Rules(away).concern("r")
