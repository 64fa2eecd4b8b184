# SPDX-License-Identifier: Apache-2.0
"""Questions that are read, answers that are made."""

from __future__ import annotations

import pytest

from lamina.container.network import dnswire
from lamina.container.network.dnswire import HEADER, A, Malformed, read_question, write_name


def message(name: bytes, *, flags: int = 0x0100, questions: int = 1, tail: bytes = b"") -> bytes:
    return HEADER.pack(9, flags, questions, 0, 0, 0) + name + b"\0\1\0\1" + tail


def test_a_question_is_read_and_answered_in_its_own_spelling() -> None:
    question = read_question(message(b"\3WeB\3net\0", tail=b"\0" * 11))  # EDNS behind it
    assert (question.id, question.name, question.type) == (9, "web.net", A)
    assert question.is_internet
    reply = dnswire.answer(question, [b"\1\2\3\4"])
    assert reply[:12] == HEADER.pack(9, 0x8180, 1, 1, 0, 0)
    assert reply[12:25] == b"\3WeB\3net\0\0\1\0\1"
    assert reply[25:] == b"\xc0\x0c\0\1\0\1\0\0\2\x58\0\4\1\2\3\4"


@pytest.mark.parametrize(
    ("bytes_", "rcode"),
    [
        (b"", -1),
        (b"\0" * 11, -1),
        (message(b"\1a\0", flags=0x8100), -1),  # an answer
        (message(b"\1a\0", flags=0x2800), dnswire.NOTIMP),  # an update
        (message(b"\1a\0", questions=0), dnswire.FORMERR),
        (message(b"\1a\0", questions=2), dnswire.FORMERR),
        (message(b"\xc0\x0c"), dnswire.FORMERR),  # points to itself
        (message(b"\x40" + b"a" * 64 + b"\0"), dnswire.FORMERR),
        (message((b"\x3f" + b"a" * 63) * 4 + b"\0"), dnswire.FORMERR),
        (message(b"\5ab"), dnswire.FORMERR),
        (message(b"\1a\0")[:-1], dnswire.FORMERR),
    ],
)
def test_what_is_no_question_is_told_or_not(bytes_: bytes, rcode: int) -> None:
    with pytest.raises(Malformed) as caught:
        read_question(bytes_)
    assert caught.value.rcode == rcode


def test_the_root_is_a_name() -> None:
    assert read_question(message(b"\0")).name == ""
    assert write_name("") == b"\0"


@pytest.mark.parametrize("name", ["a..b", "x" * 64, ".".join(["x" * 60] * 5), "ä"])
def test_what_is_no_name_is_not_written(name: str) -> None:
    with pytest.raises(ValueError, match=r"name|label|ascii"):
        write_name(name)


def test_only_the_reply_to_what_was_asked_counts() -> None:
    asked = message(b"\1a\0")
    right = dnswire.answer(read_question(asked), [b"\1\2\3\4"])
    assert dnswire.answers(right, asked)
    assert dnswire.answers(dnswire.answer(read_question(message(b"\1A\0"))), asked)
    assert dnswire.answers(dnswire.refusal(asked, dnswire.REFUSED), asked)
    assert not dnswire.answers(dnswire.refusal(asked, dnswire.NOERROR), asked)
    assert not dnswire.answers(b"\0\0" + right[2:], asked)
    assert not dnswire.answers(dnswire.answer(read_question(message(b"\1b\0"))), asked)
    assert not dnswire.answers(asked, asked)
    assert not dnswire.answers(right[:13], asked)
