# SPDX-License-Identifier: Apache-2.0
"""The resolver's messages: whatever arrives, a question or a refusal; what is written is read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina.container.network import dnswire
from lamina.container.network.dnswire import HEADER, Malformed, read_question, write_name
from lamina.container.network.names import _address_of

LABELS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=63)
NAMES = st.lists(LABELS, min_size=1, max_size=6).map(".".join).filter(lambda name: len(name) < 250)
HEADERS = st.tuples(*[st.integers(0, 3)] * 2, st.just(1), *[st.integers(0, 3)] * 3)


def question_bytes(name: str, type: int) -> bytes:
    return HEADER.pack(1, 0x0100, 1, 0, 0, 0) + write_name(name) + type.to_bytes(2, "big") + b"\0\1"


@given(st.binary(max_size=600) | st.builds(lambda h, b: HEADER.pack(*h) + b, HEADERS, st.binary()))
def test_any_bytes_are_a_question_or_malformed(data: bytes) -> None:
    try:
        question = read_question(data)
    except Malformed as malformed:
        told = HEADER.size if malformed.rcode < 0 else len(dnswire.refusal(data, malformed.rcode))
        assert told == HEADER.size  # what is told is a header
        return
    assert len(question.name) < 256
    assert data[HEADER.size :].startswith(question.raw)
    assert dnswire.answers(dnswire.answer(question), data)


@given(NAMES, st.integers(0, 0xFFFF))
def test_a_name_is_read_as_it_was_written(name: str, type: int) -> None:
    question = read_question(question_bytes(name, type))
    assert (question.name, question.type) == (name, type)


@given(NAMES, st.lists(st.binary(min_size=4, max_size=16), max_size=80), st.integers(300, 2000))
def test_an_answer_keeps_to_its_limit_or_says_that_more_is_there(
    name: str, values: list[bytes], limit: int
) -> None:
    question = read_question(question_bytes(name, 1))
    reply = dnswire.answer(question, values, limit=limit)
    assert len(reply) <= limit
    kept = HEADER.unpack_from(reply)[3]
    assert bool(reply[2] & 2) == (kept < len(values))


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_any_reply_can_be_looked_at(reply: bytes, asked: bytes) -> None:
    dnswire.answers(reply, asked)


@given(st.text("0123456789abcdef.-inaddrp6", max_size=80) | st.text(max_size=40))
def test_any_name_is_an_address_or_none(pointer: str) -> None:
    _address_of(pointer)
