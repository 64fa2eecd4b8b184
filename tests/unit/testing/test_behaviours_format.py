# SPDX-License-Identifier: Apache-2.0
"""Transcripts of behaviours: what is read of them, and that every difference is one."""

from __future__ import annotations

import pytest

from lamina.testing.behaviours import Answer, Case, Engine, mismatch, parse

TEXT = """\
A group.

## a/one: a sentence
@podman says more
$ d x
out
~ [0-9]+

[3]
! wrong
$ d y

== -u guest
## b/two: probed
> id -u
1000
==
## c/three: alone again
$ true
"""


def _cases() -> list[Case]:
    return list(parse(TEXT, file="f"))


def test_cases_are_read() -> None:
    one, two, three = _cases()
    assert (one.name, one.sentence, one.number, one.flags) == ("a/one", "a sentence", 3, None)
    assert one.note("podman") == "says more"
    assert [(step.line, step.lines, step.errors, step.status) for step in one.steps] == [
        ("d x", ("out", "~ [0-9]+", ""), ("wrong",), 3),
        ("d y", (), (), 0),
    ]
    assert (two.flags, two.steps[0].line) == ("-u guest", "id -u")
    assert three.flags is None


@pytest.mark.parametrize(
    "text",
    [
        "## a: b\n",
        "## a\n$ x\n",
        "## a: b\n@strange x\n$ x\n",
        "## a: b\n@podman\n$ x\n",
        "## a: b\nx\n",
    ],
)
def test_what_is_no_case_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="a"):
        list(parse(text, file="f"))


RIGHT = Answer("out\n12\n\n", "all wrong here\n", 3)


@pytest.mark.parametrize(
    "answer",
    [
        Answer("out\n12\n", "all wrong here\n", 3),
        Answer("out\n1x\n\n", "all wrong here\n", 3),
        Answer("out\n12\n\n", "fine\n", 3),
        Answer("out\n12\n\n", "all wrong here\n", 4),
        Answer("out\n12\n\n", "all wrong here\n", 0),
        Answer("out\n12\n\nmore\n", "all wrong here\n", 3),
    ],
)
def test_every_difference_is_one(answer: Answer) -> None:
    case = _cases()[0]
    nothing = Answer("", "", 0)
    assert mismatch(case, [RIGHT, nothing]) == ""
    assert mismatch(case, [answer, nothing])
    assert mismatch(case, [RIGHT, Answer("x", "", 0)])


def test_another_engine_has_its_own_words_for_errors() -> None:
    case = _cases()[0]
    nothing = Answer("", "", 0)
    assert mismatch(case, [Answer("out\n12\n\n", "other", 125), nothing], errors=False) == ""
    assert mismatch(case, [Answer("out\n12\n\n", "other", 0), nothing], errors=False)
    assert mismatch(case, [Answer("out\n12\n", "other", 3), nothing], errors=False)


def test_probes_of_one_container_are_told_apart() -> None:
    text = "== -x\n## a: b\n> one\n> two\n## c: d\n> three\n"
    cases = list(parse(text, file="f"))
    asked: list[str] = []

    def run(script: str) -> dict[str, str]:
        asked.append(script)
        return {"out": "1\n\x1e0\x1e2\n\x1e7\x1e3\n\x1e0\x1e", "err": ""}

    engine = Engine("engine", run)
    assert engine.answers(cases[1], cases) == [Answer("3\n", "", 0)]
    assert engine.answers(cases[0], cases) == [Answer("1\n", "", 0), Answer("2\n", "", 7)]
    assert len(asked) == 1
