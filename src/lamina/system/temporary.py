# SPDX-License-Identifier: Apache-2.0
"""Temporary directories that a killed process does not leave for ever.

Each is locked while its process lives; whoever makes the next one removes those that nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from contextlib import suppress

from lamina.errors import LaminaError
from lamina.start.record import Record
from lamina.system.removal import remove_tree

_YOUNG_SECONDS = 60.0  # in which a new directory may not have its lock yet


class TemporaryDirectory(Record):
    """A directory of this process: `path`, and the descriptor that holds its lock."""

    path: str
    lock: int

    def remove(self) -> None:
        """Remove it with all that is in it. Called once."""
        os.close(self.lock)
        _remove(self.path)


def make_temporary(parent: str, prefix: str) -> TemporaryDirectory:
    """A new directory below `parent`, which is made if it is not there."""
    os.makedirs(parent, mode=0o700, exist_ok=True)
    sweep(parent)
    path = tempfile.mkdtemp(prefix=prefix, dir=parent)
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)  # held while we live: see sweep
    return TemporaryDirectory(path, lock)


def sweep(parent: str) -> None:
    """Remove directories whose process is gone."""
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_mtime < time.time() - _YOUNG_SECONDS:
                _remove(path)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)


def _remove(path: str) -> None:
    """Remove a tree as far as that works; the next sweep tries again."""
    with suppress(LaminaError):
        remove_tree(path)
