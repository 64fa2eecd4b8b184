# SPDX-License-Identifier: Apache-2.0
"""lamina's SHA-256 is hashlib's, in whatever pieces it is fed."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from lamina.start.hashing import SMALL, Sha256


@given(st.lists(st.one_of(st.binary(max_size=100), st.integers(0, SMALL).map(bytes)), max_size=6))
def test_sha256_in_pieces(pieces: list[bytes]) -> None:
    ours, theirs = Sha256(), hashlib.sha256()
    for piece in pieces:
        ours.update(memoryview(piece))
        theirs.update(piece)
        assert ours.hexdigest() == theirs.hexdigest()
    assert ours.digest() == theirs.digest()


def test_a_changed_buffer_is_not_hashed_later() -> None:
    buffer = bytearray(b"before")
    ours = Sha256()
    ours.update(memoryview(buffer))
    buffer[:] = b"behind"
    assert ours.hexdigest() == hashlib.sha256(b"before").hexdigest()
