# SPDX-License-Identifier: Apache-2.0
"""Tell what standard input holds without taking anything from it."""

from __future__ import annotations

import io

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

_MAGIC = (
    b"\x1f\x8b",  # gzip
    b"BZh",  # bzip2
    b"\xfd7zXZ\x00",  # xz
    b"\x28\xb5\x2f\xfd",  # zstd
)
_USTAR = slice(257, 262)  # the magic of a tar header, in its first block


def peekable(stream: BinaryIO) -> io.BufferedReader:
    """`stream` itself if it can be peeked into, else a buffer around it."""
    if isinstance(stream, io.BufferedReader):
        return stream
    return io.BufferedReader(stream)  # type: ignore[arg-type]  # a raw stream is enough


def looks_like_archive(head: bytes) -> bool:
    """Whether the first bytes are those of a tar archive, plain or compressed."""
    return head.startswith(_MAGIC) or head[_USTAR] == b"ustar"
