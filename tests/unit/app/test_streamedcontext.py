# SPDX-License-Identifier: Apache-2.0
"""What `build -` takes for an archive, and that all of it arrives."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from lamina.app.streamedcontext import piped_context

if TYPE_CHECKING:
    from pathlib import Path


def header(name: bytes, flag: bytes, *, magic: bytes = b"ustar\00000") -> bytes:
    """A header block of an empty file or directory."""
    made = bytearray(512)
    made[0 : len(name)] = name
    made[100:124] = b"0000755\0" * 3
    made[124:148] = b"00000000000\0" * 2
    made[156:157], made[257:265] = flag, magic.ljust(8, b"\0")
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


@pytest.mark.parametrize("magic", [b"ustar\00000", b"ustar  ", b""])
def test_context_with_a_member_without_a_name_arrives_whole(tmp_path: Path, magic: bytes) -> None:
    members = ((b"", b"5"), (b"Dockerfile", b"0"), (b"", b"5"), (b"last", b"0"))
    data = b"".join(header(*member, magic=magic) for member in members) + bytes(1024)
    with piped_context(io.BytesIO(data), scratch=str(tmp_path / "scratch")) as context:
        names = sorted(path.name for path in (tmp_path / "scratch").glob("*/*"))
        assert context.dockerfile == b""
    assert names == ["Dockerfile", "last"]
