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
`lock` is held only while a directory is looked for or made; whoever only looks whether one is in use
holds it too, so that no step takes another directory because of that. `<n>/used.json` says which
build used it last.
"""

from __future__ import annotations

import os

from lamina.errors import Kind, LaminaError
from lamina.start.hashing import sha256
from lamina.start.jsontext import dumps, loads
from lamina.start.record import Record
from lamina.system.locks import FileLock
from lamina.system.removal import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

    from lamina.tasks import CancelToken

DIRECTORY = "cachemounts"
_WAIT_SECONDS = 0.1  # between two tries for a locked directory, as BuildKit
_OWNER_ONLY = 0o700
_ABOUT, _USED = "about.json", "used.json"


class CacheInUse(LaminaError):
    """A step holds the cache directory."""

    kind = Kind.CONFLICT


class CacheGone(LaminaError):
    """The cache directory was removed meanwhile."""

    kind = Kind.NOT_FOUND


class StoredCache(Record):
    """A cache directory: the `number`-th of the id and first content (`variant`) whose key this is.

    `path` is its content. `last_used` is in POSIX seconds; `build` and `step` say by whom, as far
    as it is known.
    """

    key: str
    number: int
    id: str
    variant: str
    path: str
    last_used: float
    build: str = ""
    step: str = ""

    @property
    def short(self) -> str:
        """What people call it: unique in a store for all that is known."""
        return self.key[:12] + (f".{self.number}" if self.number else "")

    @property
    def name(self) -> str:
        """The id as it was written; `namespace` is apart."""
        return self.id.partition("/")[2]

    @property
    def namespace(self) -> str:
        """BUILDKIT_CACHE_MOUNT_NS of the builds that use it; mostly empty."""
        return self.id.partition("/")[0]


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

    def release(self) -> None:
        """Let go of it without having used it."""
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
    user: Mapping[str, str] | None = None,
) -> CacheDirectory:
    """The cache directory `id` of the store at `root`.

    `variant` tells caches of one id apart that begin with another content or owner. `fill` is given
    the path of a new, empty directory. `waiting` is called once if another step must end first.
    `user` is noted for people: its `build` and `step`.

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
            if found is not None and user is not None:
                _write_json(os.path.join(os.path.dirname(found.path), _USED), user)
        if found is not None:
            return found
        if not has_waited:
            has_waited = True
            waiting()
        cancel.wait(_WAIT_SECONDS)
        cancel.check()


def hold_cache(
    root: str, cache: StoredCache, *, cancel: CancelToken, wait: bool = False
) -> CacheDirectory:
    """The cache directory, held alone. With `wait`, once the steps that hold it have ended.

    Raises:
        CacheInUse: a step holds it, and not `wait`.
        CacheGone: it was removed meanwhile.
        Cancelled: while waiting.
    """
    place = _Place(os.path.join(root, DIRECTORY, cache.key))
    while True:
        with place.locked(cancel):
            if cache.number not in place.numbers():
                raise CacheGone(f"the cache {cache.name} ({cache.short}) was removed meanwhile")
            held = place.take_one(cache.number)
        if held is not None:
            return held
        if not wait:
            raise CacheInUse(
                f"the cache {cache.name} ({cache.short}) is in use",
                hint="wait for the build that uses it; --wait does",
            )
        cancel.wait(_WAIT_SECONDS)
        cancel.check()


def put_cache(
    root: str,
    id: str,
    content: str,
    *,
    variant: str,
    cancel: CancelToken,
    wait: bool = False,
) -> str:
    """Make the directory `content`, which must be on the store's filesystem, the first cache of its
    id, in place of what is there; the key. A kill leaves the old content, the new, or none.

    Raises:
        CacheInUse: a step holds it, and not `wait`.
        Cancelled: while waiting.
    """
    key = _key(id, variant)
    place = _Place(os.path.join(root, DIRECTORY, key))
    while True:
        with place.locked(cancel):
            if place.put(content, about={"id": id, "variant": variant}):
                return key
        if not wait:
            raise CacheInUse(
                f"the cache {id.partition('/')[2]} ({key[:12]}) is in use",
                hint="wait for the build that uses it; --wait does",
            )
        cancel.wait(_WAIT_SECONDS)
        cancel.check()


def has_content(root: str, key: str) -> bool:
    """Whether there is a directory of this key, whatever is known of it."""
    try:
        return bool(_Place(os.path.join(root, DIRECTORY, key)).numbers())
    except (FileNotFoundError, NotADirectoryError):
        return False


def remove_unnamed(root: str, key: str) -> int:
    """Remove what nobody holds of a key whose `about.json` is lost; bytes freed."""
    return _Place(os.path.join(root, DIRECTORY, key)).remove_idle(None)


def is_in_use(root: str, cache: StoredCache) -> bool:
    """Whether a step holds it, or someone makes or takes one of its key just now."""
    return _Place(os.path.join(root, DIRECTORY, cache.key)).is_held(cache.number)


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
    return sha256(f"{len(id)}:{id}{variant}".encode("utf-8", "surrogateescape")).hexdigest()


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
            _write_json(os.path.join(self._path, _ABOUT), about)
            os.rename(unfinished, os.path.join(self._path, str(number)))
        except BaseException:
            remove_tree(unfinished)
            raise
        lock = self._lock_of(str(number), sharing)
        lock.acquire()
        return CacheDirectory(os.path.join(self._path, str(number), "fs"), lock)

    def take_one(self, number: int) -> CacheDirectory | None:
        """That directory, alone; called with the lock held."""
        lock = self._lock_of(str(number), "private")
        if not lock.try_acquire():
            return None
        return CacheDirectory(os.path.join(self._path, str(number), "fs"), lock)

    def put(self, content: str, *, about: dict[str, str]) -> bool:
        """Replace the first directory's content, or make it; False if it is in use."""
        self._remove_unfinished()
        number = min(self.numbers(), default=0)
        present = os.path.join(self._path, str(number))
        held = self.take_one(number) if os.path.isdir(present) else None
        if held is None and os.path.isdir(present):
            return False
        unfinished = os.path.join(self._path, f"{number}.new")
        os.mkdir(unfinished, _OWNER_ONLY)
        os.close(os.open(os.path.join(unfinished, "lock"), os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.rename(content, os.path.join(unfinished, "fs"))
        _write_json(os.path.join(self._path, _ABOUT), about)
        if held is not None:
            aside = os.path.join(self._path, f"{number}.gone")
            os.rename(present, aside)
            os.rename(unfinished, present)
            held.release()
            remove_tree(aside)
        else:
            os.rename(unfinished, present)
        return True

    def is_held(self, number: int) -> bool:
        """Whether the directory, or the key, is locked by someone."""
        lock = FileLock(os.path.join(self._path, "lock"))
        try:
            if not lock.try_acquire():
                return True
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            if number not in self.numbers():
                return False
            probe = self._lock_of(str(number), "private")
            if not probe.try_acquire():
                return True
            probe.release()
            return False
        finally:
            lock.release()

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


def walk(root: str) -> Iterator[StoredCache]:
    """Every cache directory, in the order of keys and numbers."""
    top = os.path.join(root, DIRECTORY)
    if not os.path.isdir(top):
        return
    for key in sorted(os.listdir(top)):
        place = _Place(os.path.join(top, key))
        about = _read_json(os.path.join(top, key, _ABOUT))
        if about is None or "id" not in about:
            continue  # removed meanwhile, or never finished
        try:
            for number in place.numbers():
                path = os.path.join(top, key, str(number))
                used = _read_json(os.path.join(path, _USED)) or {}
                last = os.stat(os.path.join(path, "lock")).st_mtime
                yield StoredCache(
                    key,
                    number,
                    about["id"],
                    about.get("variant", ""),
                    os.path.join(path, "fs"),
                    last,
                    build=used.get("build", ""),
                    step=used.get("step", ""),
                )
        except FileNotFoundError:
            continue  # removed meanwhile


def _write_json(path: str, document: Mapping[str, str]) -> None:
    """Called with the key's lock held: one writer at a time."""
    temporary = f"{path}~"
    with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(dumps(dict(document)))
    os.rename(temporary, path)


def _read_json(path: str) -> dict[str, str] | None:
    """The texts of a small object; None if it is missing or damaged."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            found = loads(file.read())
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict):
        return None
    return {name: value for name, value in found.items() if isinstance(value, str)}
