# SPDX-License-Identifier: Apache-2.0
"""Use cases of cache mounts as named things: list, choose, remove and prune them.

`app.cachecopies` takes them to other machines.
"""

from __future__ import annotations

import fnmatch
import os

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record
from lamina.store.cachemounts import CacheInUse, is_in_use, remove_idle, walk
from lamina.store.usage import tree_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lamina.store.cachemounts import StoredCache
    from lamina.store.ports import Store

_HEX = frozenset("0123456789abcdef")


class CacheInfo(Record):
    """A cache mount's directory, the bytes of disk it takes and whether a step holds it."""

    cache: StoredCache
    size: int
    in_use: bool


def list_caches(store: Store) -> list[CacheInfo]:
    """Every cache mount's directory, the last used first."""
    return inspect_caches(store, walk(store.root))


def inspect_caches(store: Store, caches: Iterable[StoredCache]) -> list[CacheInfo]:
    """Sizes and use of these, the last used first."""
    found = [
        CacheInfo(cache, tree_bytes(os.path.dirname(cache.path)), is_in_use(store.root, cache))
        for cache in caches
    ]
    return sorted(found, key=lambda info: (-info.cache.last_used, info.cache.short))


def find_caches(store: Store, texts: Sequence[str]) -> list[StoredCache]:
    """What each text names, each once: a cache id (or its beginning) or a mount's id, which may
    stand for several caches (of other first contents, of builds that ran at one time).

    Raises:
        LaminaError: NOT_FOUND; CONFLICT if the beginning of an id fits several.
    """
    known = list(walk(store.root))
    found: dict[str, StoredCache] = {}
    for text in texts:
        found.update((cache.path, cache) for cache in _named(known, text))
    return list(found.values())


def _named(known: Sequence[StoredCache], text: str) -> list[StoredCache]:
    by_name = [cache for cache in known if text in {cache.name, cache.id}]
    if by_name:
        return by_name
    start, dot, number = text.partition(".")
    if start and set(start) <= _HEX and (not dot or number.isdecimal()):
        wanted = int(number) if dot else 0
        fits = [c for c in known if c.key.startswith(start) and c.number == wanted]
        if len({cache.key for cache in fits}) > 1:
            raise LaminaError(
                f"the cache id {text} is ambiguous",
                kind=Kind.CONFLICT,
                hint=f"it fits {', '.join(cache.short for cache in fits)}",
            )
        if fits:
            return fits
    raise LaminaError(
        f"no such cache: {text}", kind=Kind.NOT_FOUND, hint="'lamina cache ls' lists them"
    )


def first_of_each(caches: Iterable[StoredCache]) -> list[StoredCache]:
    """Of the directories of one id and first content the first, which steps take before others."""
    firsts: dict[str, StoredCache] = {}
    for cache in caches:
        known = firsts.get(cache.key)
        if known is None or cache.number < known.number:
            firsts[cache.key] = cache
    return list(firsts.values())


def remove_cache(store: Store, cache: StoredCache) -> int:
    """Remove a cache mount's directory; the bytes that became free.

    Raises:
        CacheInUse: a step holds it.
    """
    freed = remove_idle(store.root, frozenset({cache.path}))
    if os.path.isdir(cache.path):
        raise CacheInUse(
            f"the cache {cache.name} ({cache.short}) is in use",
            hint="wait for the build that uses it",
        )
    return freed


class CacheFilter(Record):
    """Of `cache prune` and `cache ls`: only what was not used since `until` (POSIX seconds), has one
    of these `ids` (a mount's, with shell patterns), and is (not) `in_use`; None and empty: any.
    """

    until: float | None = None
    ids: tuple[str, ...] = ()
    in_use: bool | None = None

    def takes(self, info: CacheInfo) -> bool:
        """Whether it fits."""
        if self.until is not None and info.cache.last_used >= self.until:
            return False
        if self.in_use is not None and info.in_use is not self.in_use:
            return False
        return not self.ids or any(fnmatch.fnmatchcase(info.cache.name, id) for id in self.ids)


def prune_caches(store: Store, wanted: CacheFilter) -> tuple[list[StoredCache], int]:
    """Remove the cache mounts that fit and that no step holds: which, and the bytes freed."""
    gone: list[StoredCache] = []
    freed = 0
    for info in list_caches(store):
        if not wanted.takes(info):
            continue
        try:
            freed += remove_cache(store, info.cache)
        except CacheInUse:
            continue
        gone.append(info.cache)
    return gone, freed
