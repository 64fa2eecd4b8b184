# SPDX-License-Identifier: Apache-2.0
"""A directory for one process's mount points and temporary files, swept after it died; and the
locks that keep two processes from doing the same step.

Directories are named PID-STARTTIME. Another process's directory is removed only when that process
is gone: its mounts went with its mount namespace. (rmdir of a directory on which a living process
has mounted something would take the mount away.)
"""

from __future__ import annotations

import os

from lamina.system.process import ProcessIdentity, this_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from lamina.system.locks import FileLock
    from lamina.tasks import CancelToken

_OWNER_ONLY = 0o700
_LOCKS = "locks"  # no process's directory is called so
_POLL = 0.05  # seconds between two tries of a lock: a waiting thread must see a cancellation


class Scratch:
    """Made at the first use; `close` removes it."""

    def __init__(self, parent: str) -> None:
        self._parent = parent
        self._path = ""

    def path(self, name: str) -> str:
        """A path in the directory, which now exists."""
        if not self._path:
            os.makedirs(self._parent, mode=_OWNER_ONLY, exist_ok=True)
            self._sweep()
            me = this_process()
            path = os.path.join(self._parent, f"{me.pid}-{me.start_ticks}")
            os.makedirs(path, mode=_OWNER_ONLY, exist_ok=True)
            self._path = path
        return os.path.join(self._path, name)

    def lock(self, name: str, *, cancel: CancelToken, on_wait: Callable[[], object]) -> StepLock:
        """A lock between processes for the block; `on_wait` is called once if it is taken."""
        directory = os.path.join(self._parent, _LOCKS)
        os.makedirs(directory, mode=_OWNER_ONLY, exist_ok=True)
        return StepLock(os.path.join(directory, name), cancel=cancel, on_wait=on_wait)

    def close(self) -> None:
        """Remove the directory if nothing else of this process uses it."""
        if self._path:
            _remove(self._path)
            self._path = ""

    def _sweep(self) -> None:
        for name in os.listdir(self._parent):
            pid, _, start = name.partition("-")
            if not (pid.isdigit() and start.isdigit()):
                continue
            if not ProcessIdentity(int(pid), int(start)).alive():
                _remove(os.path.join(self._parent, name))


class StepLock:
    """See `Scratch.lock`. Ends with the process, kill -9 included."""

    def __init__(self, path: str, *, cancel: CancelToken, on_wait: Callable[[], object]) -> None:
        self._path = path
        self._cancel = cancel
        self._on_wait = on_wait
        self._lock: FileLock | None = None

    def __enter__(self) -> Self:
        from lamina.system.locks import FileLock

        lock = FileLock(self._path)
        if not lock.try_acquire():
            self._on_wait()
            while not lock.try_acquire():
                self._cancel.wait(_POLL)
                self._cancel.check()
        self._lock = lock
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._lock is not None
        try:
            os.unlink(self._path)  # allowed while it is held: see FileLock
        finally:
            self._lock.release()


def _remove(path: str) -> None:
    """Remove empty directories only: what is not empty is not ours to delete."""
    try:
        for name in os.listdir(path):
            os.rmdir(os.path.join(path, name))
        os.rmdir(path)
    except OSError:
        return
