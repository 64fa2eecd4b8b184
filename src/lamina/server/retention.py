# SPDX-License-Identifier: Apache-2.0
"""Which tags and manifests a registry's retention rules let go. Pure.

1. A tag is judged by the first rule whose repositories and tags match it; one that no rule matches
   stays.
2. A rule with `protect` keeps its tags. Another one keeps a tag if *any* of its conditions does:
   it is among the `keep_newest` of the tags that the rule judges in that repository, it was pushed
   within `keep_pushed` seconds, or its manifest was pulled within `keep_pulled` seconds. A rule
   without conditions keeps every tag.
3. A manifest that no tag points to (and no index and no living subject) is judged by the first rule
   whose repositories match and which says `untagged_after`, or protects every tag: it goes that
   many seconds after it was pushed, lost its last tag or was last pulled, whichever came last.
"""

from __future__ import annotations

from lamina.server.rights import compile_pattern
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

EVERY = ("**",)


class RetentionRule(Record):
    """A `[[retention]]` table. Patterns as in rights; times in seconds; None: not a condition."""

    repositories: str
    exclude_repositories: tuple[str, ...] = ()
    tags: tuple[str, ...] = EVERY
    exclude_tags: tuple[str, ...] = ()
    protect: bool = False
    keep_newest: int | None = None
    keep_pushed: float | None = None
    keep_pulled: float | None = None
    untagged_after: float | None = None

    @property
    def judges_tags(self) -> bool:
        """Whether the rule lets any tag go."""
        conditions = (self.keep_newest, self.keep_pushed, self.keep_pulled)
        return not self.protect and any(condition is not None for condition in conditions)


class TagFact(Record):
    """A tag: what it points to, when it was set and its manifest last pulled (0: not known)."""

    tag: str
    digest: str
    pushed: float
    pulled: float = 0.0


class UntaggedFact(Record):
    """A manifest that nothing points to: since when, and when it was last pulled (0: not known)."""

    digest: str
    since: float
    pulled: float = 0.0


class Verdict(Record):
    """What becomes of a tag (or, with an empty `tag`, of an untagged manifest), and why.

    `rule` is the number of the rule that decided, from 1; 0: none did.
    """

    repository: str
    tag: str
    digest: str
    keep: bool
    why: str
    rule: int


class Rules:
    """Retention rules, their patterns compiled."""

    def __init__(self, rules: Sequence[RetentionRule]) -> None:
        self._rules = [_Compiled(number, rule) for number, rule in enumerate(rules, start=1)]

    def concern(self, repository: str) -> bool:
        """Whether a rule could let something of the repository go."""
        return any(
            each.matches(repository)
            and (each.rule.judges_tags or each.rule.untagged_after is not None)
            for each in self._rules
        )

    def judge(
        self,
        repository: str,
        tags: Sequence[TagFact],
        untagged: Sequence[UntaggedFact] = (),
        *,
        now: float,
    ) -> tuple[Verdict, ...]:
        """One verdict a tag, newest first, then one an untagged manifest. Order of facts is free."""
        rules = [rule for rule in self._rules if rule.matches(repository)]
        verdicts: list[Verdict] = []
        places: dict[int, int] = {}
        for fact in sorted(tags, key=lambda fact: (-fact.pushed, fact.tag)):
            found = next((rule for rule in rules if rule.matches_tag(fact.tag)), None)
            if found is None:
                keep, why, number = True, "no rule matches it", 0
            else:
                number = found.number
                place = places[number] = places.get(number, 0) + 1
                keep, why = _judge_tag(found.rule, fact, place=place, now=now)
            verdicts.append(Verdict(repository, fact.tag, fact.digest, keep, why, number))
        decides = next((rule for rule in rules if rule.judges_untagged), None)
        for orphan in sorted(untagged, key=lambda fact: (-fact.since, fact.digest)):
            if decides is None:
                keep, why, number = True, "no rule says untagged-after", 0
            else:
                number = decides.number
                keep, why = _judge_untagged(decides.rule, orphan, now=now)
            verdicts.append(Verdict(repository, "", orphan.digest, keep, why, number))
        return tuple(verdicts)


class _Compiled:
    def __init__(self, number: int, rule: RetentionRule) -> None:
        self.number = number
        self.rule = rule
        self._repositories = compile_pattern(rule.repositories)
        self._not_repositories = [compile_pattern(text) for text in rule.exclude_repositories]
        self._tags = [compile_pattern(text) for text in rule.tags]
        self._not_tags = [compile_pattern(text) for text in rule.exclude_tags]

    def matches(self, repository: str) -> bool:
        return self._repositories.fullmatch(repository) is not None and not any(
            pattern.fullmatch(repository) for pattern in self._not_repositories
        )

    def matches_tag(self, tag: str) -> bool:
        return any(pattern.fullmatch(tag) for pattern in self._tags) and not any(
            pattern.fullmatch(tag) for pattern in self._not_tags
        )

    @property
    def judges_untagged(self) -> bool:
        if self.rule.untagged_after is not None:
            return True
        return self.rule.protect and self.rule.tags == EVERY and not self.rule.exclude_tags


def _judge_tag(rule: RetentionRule, fact: TagFact, *, place: int, now: float) -> tuple[bool, str]:
    if rule.protect:
        return True, "protected"
    if not rule.judges_tags:
        return True, "the rule has no condition for tags"
    failed: list[str] = []
    if rule.keep_newest is not None:
        if place <= rule.keep_newest:
            return True, f"number {place} of the newest {rule.keep_newest}"
        failed.append(f"number {place}, the newest {rule.keep_newest} stay")
    if rule.keep_pushed is not None:
        if now - fact.pushed <= rule.keep_pushed:
            return True, f"pushed {_ago(now - fact.pushed)}"
        failed.append(f"pushed {_ago(now - fact.pushed)}")
    if rule.keep_pulled is not None:
        if fact.pulled and now - fact.pulled <= rule.keep_pulled:
            return True, f"pulled {_ago(now - fact.pulled)}"
        failed.append(f"pulled {_ago(now - fact.pulled)}" if fact.pulled else "never pulled")
    return False, "; ".join(failed)


def _judge_untagged(rule: RetentionRule, fact: UntaggedFact, *, now: float) -> tuple[bool, str]:
    if rule.untagged_after is None:
        return True, "protected"
    if now - fact.pulled <= rule.untagged_after:
        return True, f"pulled {_ago(now - fact.pulled)}"
    why = f"without a tag for {_span(now - fact.since)}"
    return now - fact.since <= rule.untagged_after, why


def _ago(seconds: float) -> str:
    return f"{_span(seconds)} ago"


def _span(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} seconds"
