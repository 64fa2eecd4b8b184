# SPDX-License-Identifier: Apache-2.0
"""A megabyte kept back, so that names can be deleted and GC can run on a full disk.

Deleting rows makes sqlite's log longer; at zero bytes free that alone would fail. The reserve file
is given up then, and allocated again when GC has made room.
"""

from __future__ import annotations

import os

from lamina.store.faults import is_full

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

SIZE = 1024 * 1024  # bytes; a log of 250 sqlite pages


class Reserve:
    """The file `reserve` of a store root."""

    def __init__(self, root: str) -> None:
        self._path = os.path.join(root, "reserve")

    def fill(self) -> None:
        """Allocate the reserve if there is room for it; on a full disk there is none, silently."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(fd).st_blocks * 512 < SIZE:
                os.posix_fallocate(fd, 0, SIZE)
        except OSError as error:
            if not is_full(error):
                raise
            os.ftruncate(fd, 0)
        finally:
            os.close(fd)

    def release(self) -> bool:
        """Give the space up; whether there was any to give."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            if os.fstat(fd).st_blocks == 0:
                return False
            os.ftruncate(fd, 0)
            return True
        finally:
            os.close(fd)

    def retry(self, work: Callable[[], T]) -> T:
        """`work()`; if the disk is full, once more after giving the reserve up."""
        try:
            return work()
        except OSError as error:
            if not is_full(error) or not self.release():
                raise
        return work()
