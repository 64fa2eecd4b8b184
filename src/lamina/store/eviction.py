# SPDX-License-Identifier: Apache-2.0
"""Which cache records and cache mounts are to go so that the build cache keeps to its limits.

Records of one result stand and fall together (a step has several keys). What an image or a container
needs is not the cache's: it costs nothing to keep and frees nothing when its records go. The least
recently used goes first. This only chooses; `gc.collect` removes, and leaves what is in use.
"""

from __future__ import annotations

import os

from lamina.errors import LaminaError
from lamina.spec.digest import DiffID, Digest
from lamina.spec.identity import chain_ids
from lamina.start.jsontext import loads
from lamina.start.record import Record
from lamina.store import cachemounts
from lamina.store.gc import NOTHING, Evicted, Marked, mark_in_use
from lamina.store.usage import Parts, layer_sizes, tree_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamina.store.local import LocalStore


class Limits(Record):
    """What the build cache may hold. `keep_bytes` at most (None: no limit); `free_bytes` of disk
    are to be free; only what was not used since `unused_since` goes (None: whatever it is).
    With `dangling_only` records of layers that an image has stay; with `mounts_only` only cache
    mounts go.
    """

    keep_bytes: int | None = None
    free_bytes: int = 0
    unused_since: float | None = None
    dangling_only: bool = False
    mounts_only: bool = False


class CacheEntry(Record):
    """A result of the cache, or a cache mount (`is_mount`), with what it alone may need.

    `holds` names blobs, snapshots or the mount; `in_use` says that an image or a container has all
    its layers. Times are POSIX seconds.
    """

    id: str
    name: str
    keys: frozenset[str]
    holds: frozenset[str]
    created: float
    last_used: float
    in_use: bool = False
    is_mount: bool = False


class CacheUsage(Record):
    """The build cache: its entries and the bytes of what they hold."""

    entries: tuple[CacheEntry, ...]
    sizes: dict[str, int]

    @property
    def bytes(self) -> int:
        """Everything that only the cache holds, once."""
        return self.size_of(self.entries)

    def size_of(self, entries: Iterable[CacheEntry]) -> int:
        """Bytes of what these entries hold together."""
        return sum(self.sizes.get(name, 0) for name in {n for e in entries for n in e.holds})


def cache_usage(store: LocalStore, parts: Parts | None = None) -> CacheUsage:
    """The build cache as it is; sizes from `parts` if these were measured."""
    used = mark_in_use(store)
    if parts is None:
        blobs, snapshots = layer_sizes(store)
        mounts = None
    else:
        blobs, snapshots, mounts = parts.blobs, parts.snapshots, parts.mounts
    sizes = {**blobs, **snapshots}
    entries = [_entry(store, row, used) for row in _results(store)]
    for cache in cachemounts.walk(store.root):
        path, last = cache.path, cache.last_used
        top = os.path.dirname(path)
        sizes[path] = mounts.get(path, 0) if mounts is not None else tree_bytes(top)
        name = f"cache mount {cache.name}"
        entry = CacheEntry(cache.short, name, NOTHING, frozenset({path}), last, last, is_mount=True)
        entries.append(entry)
    return CacheUsage(tuple(entries), sizes)


def choose(usage: CacheUsage, limits: Limits, *, free_bytes: int) -> Evicted:
    """The least recently used entries that have to go, while `free_bytes` of disk are free now."""
    users: dict[str, int] = {}
    for entry in usage.entries:
        for name in entry.holds:
            users[name] = users.get(name, 0) + 1
    total = sum(usage.sizes.get(name, 0) for name in users)
    freed = 0
    gone: list[CacheEntry] = []
    has_goal = limits.keep_bytes is not None or limits.free_bytes > 0
    for entry in sorted(usage.entries, key=lambda entry: (entry.last_used, entry.created)):
        if has_goal and (
            (limits.keep_bytes is None or total - freed <= limits.keep_bytes)
            and free_bytes + freed >= limits.free_bytes
        ):
            break
        if limits.dangling_only and entry.in_use:
            continue
        if limits.mounts_only and not entry.is_mount:
            continue
        if has_goal and not entry.holds:
            continue  # an image has all of it: nothing becomes free
        if limits.unused_since is not None and entry.last_used >= limits.unused_since:
            continue
        gone.append(entry)
        for name in entry.holds:
            users[name] -= 1
            if not users[name]:
                freed += usage.sizes.get(name, 0)
    return Evicted(
        frozenset(key for entry in gone for key in entry.keys),
        frozenset(path for entry in gone if entry.is_mount for path in entry.holds),
        tuple(entry.id for entry in gone),
        freed,
    )


class _Result(Record):
    """All records of one result."""

    text: str
    keys: tuple[str, ...]
    name: str
    created: float
    last_used: float


def _results(store: LocalStore) -> list[_Result]:
    found: dict[str, _Result] = {}
    query = "SELECT key, result, name, created, last_used FROM cache ORDER BY created"
    for key, text, name, created, last_used in store.database.read(query):
        known = found.get(text)
        if known is None:
            found[text] = _Result(text, (str(key),), str(name), created, last_used)
        else:
            keys = (*known.keys, str(key))
            last = max(last_used, known.last_used)
            found[text] = _Result(text, keys, known.name, known.created, last)
    return list(found.values())


def _entry(store: LocalStore, row: _Result, used: Marked) -> CacheEntry:
    holds: set[str] = set()
    in_use = True
    try:
        stack = [DiffID(Digest.parse(part)) for part in loads(row.text)]
        chains = chain_ids(stack)
    except (LaminaError, ValueError, TypeError, AttributeError):
        stack, chains = [], ()  # a damaged row holds nothing
    for diff_id, chain in zip(stack, chains, strict=True):
        if str(diff_id) not in used.layers:
            in_use = False
            layer = store.metadata.get_layer(diff_id)
            blobs = layer.blobs if layer is not None else ()
            holds |= {str(b.digest) for b in blobs if str(b.digest) not in used.blobs}
        if str(chain) not in used.snapshots:
            holds.add(str(chain))
    short = row.keys[0].rpartition(":")[2][:25]
    return CacheEntry(
        short,
        row.name,
        frozenset(row.keys),
        frozenset(holds),
        row.created,
        row.last_used,
        in_use=in_use and bool(stack),
    )
