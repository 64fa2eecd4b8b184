# SPDX-License-Identifier: Apache-2.0
"""Part of a file as content (`entry.Stream`)."""

from __future__ import annotations

import os


class Slice:
    """`size` bytes of an open file from `offset` on; many can be read in any order."""

    __slots__ = ("_fd", "_left", "_offset")

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._offset = offset
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = os.pread(self._fd, wanted, self._offset)
        self._offset += len(data)
        self._left -= len(data)
        return data
