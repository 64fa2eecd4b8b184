# SPDX-License-Identifier: Apache-2.0
"""What a step prints is masked the same in whatever pieces it comes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lamina.builder.secrets import MASK, Redactor

LETTERS = st.sampled_from([b"a", b"b", b"\n", b"secret", b"sec", b" "])
TEXTS = st.lists(LETTERS, max_size=12).map(b"".join)
VALUES = st.lists(
    st.sampled_from([b"secret", b"abab", b"aab", b"abababab\nlines of it\n"]), max_size=3
)


def printed(pieces: list[bytes], values: list[bytes]) -> bytes:
    out: list[bytes] = []
    redactor = Redactor(values, lambda _stream, data: out.append(data))
    for piece in pieces:
        redactor.write(1, piece)
    redactor.flush()
    return b"".join(out)


@given(st.lists(TEXTS, max_size=6), VALUES)
def test_no_value_is_printed(pieces: list[bytes], values: list[bytes]) -> None:
    shown = printed(pieces, values)
    for value in values:
        assert value.strip() not in shown.replace(MASK, b"\0")


@given(TEXTS, VALUES, st.data())
def test_pieces_make_no_difference_to_what_is_shown(
    text: bytes, values: list[bytes], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    edges = [0, *cuts, len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    shown = printed(pieces, values)
    whole = printed([text], values)
    assert shown == whole


@given(st.lists(TEXTS, max_size=6))
def test_without_secrets_nothing_is_held_back(pieces: list[bytes]) -> None:
    assert printed(pieces, []) == b"".join(pieces)
