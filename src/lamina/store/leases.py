# SPDX-License-Identifier: Apache-2.0
"""Leases: what GC may not take away while a process works.

Rules, on which GC depends (docs/store-layout.md draws them):
- A lease is a file `leases/<name>` that its holder keeps locked (flock): it ends with the process,
  kill -9 included. The file says who (pid, start time, purpose) and since when.
- GC removes only what was made *and* last used before the oldest live lease began, and before GC
  itself began.
- Under a lease, relying on something older than the lease *touches* it: a blob's atime, a row's
  `used`. GC decides and removes under the exclusive `locks/sweep` (blobs) or in one sqlite
  transaction (rows); a touch takes the same lock shared, so it comes before the decision or finds
  the thing gone.
- A lease's time is read after its file is locked: GC that did not see it has begun before it.
- A clock that is set back cannot make a touch look old: stamps are never before the lease.
"""

from __future__ import annotations

import fcntl
import itertools
import os

from lamina.start.jsontext import dumps, loads
from lamina.start.lowlevel import allocate_lock, get_ident
from lamina.store.faults import disk_error
from lamina.system.locks import FileLock, same_file
from lamina.system.process import this_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from lamina.store.reserve import Reserve

_NANOSECONDS = 1_000_000_000
_numbers = itertools.count(1)  # of this process: several stores may be open on one root


class Leases:
    """The leases of one root, and those that this process holds."""

    def __init__(self, root: str, *, clock: Callable[[], float], reserve: Reserve) -> None:
        self.directory = os.path.join(root, "leases")
        self.store_lock = os.path.join(root, "locks", "store")
        self.sweep_lock = os.path.join(root, "locks", "sweep")
        self._clock = clock
        self._reserve = reserve
        self._guard = allocate_lock()
        self._held: dict[str, tuple[float, int]] = {}  # file name -> (since, thread)

    def lease(self, purpose: str) -> Lease:
        """A lease for `with`; see ports.Store.lease."""
        return Lease(self, purpose)

    def since(self) -> float | None:
        """When the newest lease of this process began; None without one. What was used after it
        needs no touch, whichever lease relies on it.
        """
        with self._guard:
            return max((since for since, _ in self._held.values()), default=None)

    def stamp(self) -> float:
        """The time to write on what is made or used now."""
        since = self.since()
        now = self._clock()
        return now if since is None else max(now, since)

    def touch_blob(self, path: str) -> bool:
        """Whether the blob is there; under a lease it is now safe from GC until the lease ends."""
        try:
            found = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        since = self.since()
        if since is None or found.st_atime_ns >= int(since * _NANOSECONDS):
            return True
        with FileLock(self.sweep_lock, shared=True):
            try:
                stamp = int(self.stamp() * _NANOSECONDS)
                os.utime(path, ns=(stamp, found.st_mtime_ns), follow_symlinks=False)
            except FileNotFoundError:
                return False
        return True

    def oldest(self) -> float | None:
        """When the oldest live lease began, those of the calling thread left out; None if there is
        none. Removes the files of dead ones.
        """
        me = get_ident()
        with self._guard:
            mine = {name for name, (_, thread) in self._held.items() if thread == me}
        times = [self._live_since(name) for name in os.listdir(self.directory) if name not in mine]
        return min((since for since in times if since is not None), default=None)

    def _live_since(self, name: str) -> float | None:
        """Begin of the lease; None if its holder is dead, 0 if it cannot be read yet."""
        path = os.path.join(self.directory, name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return _since_of(os.read(fd, 4096))
            if same_file(fd, path):
                os.unlink(path)
            return None
        finally:
            os.close(fd)

    def _add(self, purpose: str) -> tuple[str, FileLock]:
        process = this_process()
        name = f"{process.pid}.{process.start_ticks}.{next(_numbers)}"
        lock = FileLock(os.path.join(self.directory, name))
        self._reserve.retry(lock.acquire)
        try:
            since = self._clock()
            holder = {"pid": process.pid, "start_ticks": process.start_ticks}
            text = dumps({"since": since, **holder, "purpose": purpose}).encode()
            self._reserve.retry(lambda: os.pwrite(lock.fd, text, 0))
        except BaseException:
            lock.release()
            raise
        with self._guard:
            self._held[name] = (since, get_ident())
        return name, lock

    def _remove(self, name: str, lock: FileLock) -> None:
        with self._guard:
            self._held.pop(name, None)
        if lock.fd >= 0 and same_file(lock.fd, lock.path):
            os.unlink(lock.path)
        lock.release()


class Lease:
    """One lease: the lease file and the store lock, shared."""

    def __init__(self, leases: Leases, purpose: str) -> None:
        self._leases = leases
        self._purpose = purpose
        self._store_lock = FileLock(leases.store_lock, shared=True)
        self._held: tuple[str, FileLock] | None = None

    def __enter__(self) -> Self:
        try:
            self._store_lock.acquire()
            self._held = self._leases._add(self._purpose)
        except OSError as error:
            self._store_lock.release()
            raise disk_error(error, f"cannot take a lease for {self._purpose}") from error
        except BaseException:
            self._store_lock.release()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        if self._held is not None:
            self._leases._remove(*self._held)
            self._held = None
        self._store_lock.release()


def _since_of(text: bytes) -> float:
    try:
        since = loads(text)["since"]
    except (ValueError, KeyError, TypeError):
        return 0.0  # being written, or unreadable: GC removes nothing this time
    return float(since) if isinstance(since, int | float) else 0.0
