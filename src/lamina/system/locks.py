# SPDX-License-Identifier: Apache-2.0
"""File locks (flock): between processes, and between threads, because each lock has its own fd.

A lock ends with its holder, kill -9 included. Lock files may be deleted by whoever holds the lock
exclusively: acquiring checks that the locked file is still the one at the path. A forked child
shares its parent's lock until it execs; releasing unlocks explicitly, so a child cannot keep it.
"""

from __future__ import annotations

import fcntl
import os

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from lamina.tasks import CancelToken

_POLL_SECONDS = 0.05


class FileLock:
    """An flock on the file at `path` (created, mode 0600). Reentrant in no way.

    With `cancel` waiting ends with Cancelled when the token is set: flock(2) itself is resumed after
    a signal, so the lock is polled then.
    """

    def __init__(
        self, path: str, *, shared: bool = False, cancel: CancelToken | None = None
    ) -> None:
        self.path = path
        self.fd = -1
        self._cancel = cancel
        self._operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX

    def acquire(self) -> None:
        """Wait for the lock. Raises OSError if the file cannot be opened, Cancelled."""
        if self._cancel is None:
            self._acquire(self._operation)
            return
        self._cancel.check()
        while not self.try_acquire():
            self._cancel.wait(_POLL_SECONDS)
            self._cancel.check()

    def try_acquire(self) -> bool:
        """Take the lock if it is free now; whether it was."""
        try:
            self._acquire(self._operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _acquire(self, operation: int) -> None:
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, operation)
                if same_file(fd, self.path):
                    self.fd = fd
                    return
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # the file was deleted or replaced while we waited: lock the new one

    def release(self) -> None:
        """Give the lock back. Idempotent."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            try:
                fcntl.flock(fd, fcntl.LOCK_UN)
            finally:
                os.close(fd)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


def same_file(fd: int, path: str) -> bool:
    """Whether the open file `fd` is what `path` names now."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    opened = os.fstat(fd)
    return (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino)


def lock_directory(fd: int, *, subject: str) -> None:
    """Wait for an exclusive flock on an open directory; closing `fd` releases it.

    Raises:
        LaminaError: kind UNSUPPORTED if the filesystem has no locks.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as error:
        raise LaminaError(
            f"cannot lock {subject}: {error.strerror}",
            kind=Kind.UNSUPPORTED,
            hint="put the store on a local filesystem that supports flock",
        ) from error
