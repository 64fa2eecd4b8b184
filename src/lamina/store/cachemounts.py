# SPDX-License-Identifier: Apache-2.0
"""Directories of `RUN --mount=type=cache`: kept between builds, shared by processes.

`cachemounts/<key>/` stands for one id with one first content; in it `about.json` says for people
what it is, and each `<n>/` is one directory (`fs`) with a `lock`. There is more than one only where
builds that must not share ran at the same time.

| sharing | takes the first directory that it can lock | if there is none |
|---|---|---|
| shared | together with other shared users | makes another |
| private | alone | makes another |
| locked | alone | makes the first; waits if there are any |

These are BuildKit's rules (solver/llbsolver/mounts), with flock(2) instead of a daemon's memory, so
that they hold between commands too and end with a process that is killed. A directory is made
under the name `<n>.new` and renamed: what a killed process was filling is never used. The key's own
`lock` is held only while a directory is looked for or made.
"""

from __future__ import annotations

import hashlib
import json
import os

from lamina.store.removal import remove_tree
from lamina.system.locks import FileLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from lamina.tasks import CancelToken

DIRECTORY = "cachemounts"
_WAIT_SECONDS = 0.1  # between two tries for a locked directory, as BuildKit
_OWNER_ONLY = 0o700


class CacheDirectory:
    """A directory held for one step: mount `path`. A context manager that lets go of it."""

    def __init__(self, path: str, lock: FileLock) -> None:
        self.path = path
        self._lock = lock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.utime(self._lock.path)  # when it was last used
        self._lock.release()


def open_cache(
    root: str,
    id: str,
    *,
    variant: str,
    sharing: str,
    fill: Callable[[str], None],
    waiting: Callable[[], None],
    cancel: CancelToken,
) -> CacheDirectory:
    """The cache directory `id` of the store at `root`.

    `variant` tells caches of one id apart that begin with another content or owner. `fill` is given
    the path of a new, empty directory. `waiting` is called once if another step must end first.

    Raises:
        Cancelled: while waiting.
        LaminaError, OSError: what `fill` raises; the new directory is gone then.
    """
    place = _Place(os.path.join(root, DIRECTORY, _key(id, variant)))
    has_waited = False
    while True:
        with place.locked(cancel):
            found = place.take(sharing)
            if found is None and (sharing != "locked" or not place.numbers()):
                found = place.make(sharing, fill, about={"id": id, "variant": variant})
        if found is not None:
            return found
        if not has_waited:
            has_waited = True
            waiting()
        cancel.wait(_WAIT_SECONDS)
        cancel.check()


def remove_idle(root: str, only: frozenset[str] | None = None) -> int:
    """Remove every cache directory that no step holds (of those in `only`, paths as `walk` gives
    them); the bytes of disk that were freed.
    """
    freed = 0
    top = os.path.join(root, DIRECTORY)
    try:
        keys = os.listdir(top)
    except FileNotFoundError:
        return 0
    for key in keys:
        freed += _Place(os.path.join(top, key)).remove_idle(only)
    return freed


def _key(id: str, variant: str) -> str:
    return hashlib.sha256(f"{len(id)}:{id}{variant}".encode("utf-8", "surrogateescape")).hexdigest()


class _Place:
    """The directories of one key."""

    def __init__(self, path: str) -> None:
        self._path = path

    def locked(self, cancel: CancelToken) -> _Held:
        """The key's lock, acquired; its directory is there as long as it is held."""
        lock = FileLock(os.path.join(self._path, "lock"), cancel=cancel)
        while True:
            os.makedirs(self._path, mode=_OWNER_ONLY, exist_ok=True)
            try:
                lock.acquire()
            except FileNotFoundError:
                continue  # garbage collection removed the directory in between
            return _Held(lock)

    def numbers(self) -> list[int]:
        """The directories there are, in order; called with the lock held."""
        return sorted(int(name) for name in os.listdir(self._path) if name.isdecimal())

    def take(self, sharing: str) -> CacheDirectory | None:
        """The first directory that can be locked."""
        for number in self.numbers():
            lock = self._lock_of(str(number), sharing)
            if lock.try_acquire():
                return CacheDirectory(os.path.join(self._path, str(number), "fs"), lock)
        return None

    def make(
        self, sharing: str, fill: Callable[[str], None], *, about: dict[str, str]
    ) -> CacheDirectory:
        """A new directory, filled and locked."""
        self._remove_unfinished()
        number = max(self.numbers(), default=-1) + 1
        unfinished = os.path.join(self._path, f"{number}.new")
        os.mkdir(unfinished, _OWNER_ONLY)
        try:
            files = os.path.join(unfinished, "fs")
            os.mkdir(files)
            os.chmod(files, 0o755)  # noqa: S103  # BuildKit's mode, whatever the umask
            fill(files)
            with open(os.path.join(self._path, "about.json"), "w", encoding="utf-8") as file:
                json.dump(about, file)
            os.rename(unfinished, os.path.join(self._path, str(number)))
        except BaseException:
            remove_tree(unfinished)
            raise
        lock = self._lock_of(str(number), sharing)
        lock.acquire()
        return CacheDirectory(os.path.join(self._path, str(number), "fs"), lock)

    def remove_idle(self, only: frozenset[str] | None) -> int:
        """Remove what nobody holds; bytes freed."""
        lock = FileLock(os.path.join(self._path, "lock"))
        try:
            if not lock.try_acquire():
                return 0
        except (FileNotFoundError, NotADirectoryError):
            return 0
        freed = 0
        try:
            freed += self._remove_unfinished()
            for number in self.numbers():
                path = os.path.join(self._path, str(number), "fs")
                if only is not None and path not in only:
                    continue
                held = self._lock_of(str(number), "private")
                if held.try_acquire():
                    aside = os.path.join(self._path, f"{number}.gone")
                    os.rename(os.path.join(self._path, str(number)), aside)
                    held.release()
                    freed += remove_tree(aside)
            if not self.numbers():
                for name in os.listdir(self._path):
                    os.unlink(os.path.join(self._path, name))
                os.rmdir(self._path)
        finally:
            lock.release()
        return freed

    def _remove_unfinished(self) -> int:
        names = [name for name in os.listdir(self._path) if name.endswith((".new", ".gone"))]
        return sum(remove_tree(os.path.join(self._path, name)) for name in names)

    def _lock_of(self, name: str, sharing: str) -> FileLock:
        path = os.path.join(self._path, name, "lock")
        return FileLock(path, shared=sharing == "shared")


class _Held:
    """An acquired lock as a context manager."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None:
        self._lock.release()


def walk(root: str) -> Iterator[tuple[str, str, float]]:
    """Of every cache directory: its id, its path and when it was last used (POSIX seconds)."""
    top = os.path.join(root, DIRECTORY)
    if not os.path.isdir(top):
        return
    for key in sorted(os.listdir(top)):
        place = _Place(os.path.join(top, key))
        try:
            with open(os.path.join(top, key, "about.json"), encoding="utf-8") as file:
                id = str(json.load(file)["id"])
            for number in place.numbers():
                path = os.path.join(top, key, str(number))
                yield id, os.path.join(path, "fs"), os.stat(os.path.join(path, "lock")).st_mtime
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            continue  # removed meanwhile, or never finished
