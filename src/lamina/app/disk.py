# SPDX-License-Identifier: Apache-2.0
"""Use cases of disk space: what uses it (`system df`), and removing what is not needed (`prune`).

There is one accounting: every byte of `store.usage.measure` is in one row of `disk_usage`, and what
prune reports is what `store.gc` and the removal of containers freed.
"""

from __future__ import annotations

import os

from lamina.app.containers import find, list_containers
from lamina.app.images import collect_garbage, created_of
from lamina.app.removing import forget, image_users, users_of
from lamina.app.volumes import list_volumes
from lamina.container import volumes
from lamina.container.lifecycle import remove_stray
from lamina.errors import Kind, LaminaError
from lamina.events import silent
from lamina.image.ids import held_names
from lamina.image.resolve import open_preferred
from lamina.spec.platform import host
from lamina.spec.reference import Reference
from lamina.start.record import Record
from lamina.store.eventlog import note
from lamina.store.eviction import cache_usage, choose
from lamina.store.gc import collect, mark_of
from lamina.store.local import LocalStore
from lamina.store.usage import measure, tree_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamina.app.containers import Container, Host
    from lamina.events import Emitter
    from lamina.image.ids import Held
    from lamina.spec.descriptor import Descriptor
    from lamina.spec.platform import Platform
    from lamina.store.eviction import CacheEntry, CacheUsage, Limits
    from lamina.store.ports import Store


class Row(Record):
    """A kind of thing in the store: how many there are and are in use, bytes, reclaimable bytes."""

    type: str
    total: int
    active: int
    size: int
    reclaimable: int


class ImageUse(Record):
    """An image: the bytes it shares with others, those it alone needs, and its containers."""

    names: tuple[str, ...]
    id: str
    created: float
    shared: int
    unique: int
    containers: int


class ContainerUse(Record):
    """A container and the bytes of its files and log."""

    container: Container
    size: int
    is_running: bool


class VolumeBytes(Record):
    """A volume, how many containers have it, and the bytes of its files."""

    name: str
    links: int
    size: int


class DiskUsage(Record):
    """Everything in the store. `rows` add up to `total`, which is what the filesystem counts."""

    rows: tuple[Row, ...]
    images: tuple[ImageUse, ...]
    containers: tuple[ContainerUse, ...]
    volumes: tuple[VolumeBytes, ...]
    cache: CacheUsage
    total: int


class Pruned(Record):
    """What was removed, as lines for people, and the bytes of disk that became free."""

    lines: tuple[str, ...]
    bytes: int


class PruneFilter(Record):
    """Of `prune --filter`: only what is older than `until` (POSIX seconds, None: whatever its age)
    and has all of `labels` and none of `without` ((name, value or None) each).
    """

    until: float | None = None
    labels: tuple[tuple[str, str | None], ...] = ()
    without: tuple[tuple[str, str | None], ...] = ()

    def takes(self, created: float, labels: dict[str, str]) -> bool:
        """Whether a thing of this age with these labels is to be removed."""
        if self.until is not None and created >= self.until:
            return False
        return all(_has(labels, wanted) for wanted in self.labels) and not any(
            _has(labels, unwanted) for unwanted in self.without
        )


def _has(labels: dict[str, str], wanted: tuple[str, str | None]) -> bool:
    name, value = wanted
    return name in labels and (value is None or labels[name] == value)


# What uses it -------------------------------------------------------------------------------------


def disk_usage(store: Store) -> DiskUsage:
    """Where the bytes of the store are."""
    assert isinstance(store, LocalStore)
    with store.lease("df"):
        parts = measure(store)
        sizes = {**parts.blobs, **parts.snapshots}
        images, image_parts, active_parts = _images(store, sizes)
        containers, container_parts = _containers(store, parts.containers, parts.snapshots)
        volumes = _volumes(store, parts.volumes)
        cache = cache_usage(store, parts)
    image_bytes = sum(sizes.get(name, 0) for name in image_parts)
    active_bytes = sum(sizes.get(name, 0) for name in active_parts)
    container_bytes = sum(use.size for use in containers)
    known_containers = {use.container.id for use in containers}
    strays = sum(size for id, size in parts.containers.items() if id not in known_containers)
    volume_bytes = sum(use.size for use in volumes)
    strays += sum(parts.volumes.values()) - volume_bytes
    held = image_parts | container_parts
    layers = sum(size for name, size in sizes.items() if name not in held)
    cache_bytes = layers + sum(parts.mounts.values())
    stopped = sum(use.size for use in containers if not use.is_running)
    rows = (
        Row(
            "Images",
            len(images),
            sum(1 for use in images if use.containers),
            image_bytes,
            image_bytes - active_bytes,
        ),
        Row(
            "Containers",
            len(containers),
            sum(use.is_running for use in containers),
            container_bytes,
            stopped,
        ),
        Row(
            "Local Volumes",
            len(volumes),
            sum(use.links > 0 for use in volumes),
            volume_bytes,
            sum(use.size for use in volumes if not use.links),
        ),
        Row("Build Cache", len(cache.entries), 0, cache_bytes, cache_bytes),
        Row("Records", 1, 1, parts.other + strays, 0),
    )
    return DiskUsage(rows, tuple(images), tuple(containers), volumes, cache, parts.total)


def _images(store: LocalStore, sizes: dict[str, int]) -> tuple[list[ImageUse], set[str], set[str]]:
    """Images by id, the blobs and snapshots that they need, and those that containers use."""
    platform = host(os.uname().machine)
    held = held_names(store)
    containers = image_users(store)
    by_target: dict[str, list[Held]] = {}
    for each in held:
        by_target.setdefault(str(each.named.target.digest), []).append(each)
    marks = {digest: mark_of(store, [same[0].named.target]) for digest, same in by_target.items()}
    needs = {digest: mark.blobs | mark.snapshots for digest, mark in marks.items()}
    count: dict[str, int] = {}
    for parts in needs.values():
        for part in parts:
            count[part] = count.get(part, 0) + 1
    found = []
    active: set[str] = set()
    for digest, same in by_target.items():
        users = max(len(users_of(each, containers, held)) for each in same)
        if users:
            active |= needs[digest]
        try:
            image = open_preferred(store, same[0].named.target, platform)
            id, created = str(image.id), created_of(image)
        except LaminaError:
            id, created = digest, 0.0  # damaged: it is listed with what is left of it
        references = tuple(
            Reference.parse(each.named.name).familiar() for each in same if not each.is_dangling
        )
        shared = sum(sizes.get(part, 0) for part in needs[digest] if count[part] > 1)
        unique = sum(sizes.get(part, 0) for part in needs[digest] if count[part] == 1)
        found.append(ImageUse(references, id, created, shared, unique, users))
    everything = {part for parts in needs.values() for part in parts}
    return found, everything & sizes.keys(), active & sizes.keys()


def _containers(
    store: LocalStore, directories: dict[str, int], snapshots: dict[str, int]
) -> tuple[list[ContainerUse], set[str]]:
    """Containers, and the snapshots that are their own."""
    uses = []
    for container in list_containers(store):
        size = directories.get(container.id, 0) + snapshots.get(container.id, 0)
        uses.append(ContainerUse(container, size, container.state().is_up))
    return uses, {use.container.id for use in uses} & snapshots.keys()


def _volumes(store: LocalStore, sizes: dict[str, int]) -> tuple[VolumeBytes, ...]:
    return tuple(
        VolumeBytes(use.volume.name, len(use.containers), sizes.get(use.volume.name, 0))
        for use in list_volumes(store)
    )


# Removing -----------------------------------------------------------------------------------------


def prune_containers(store: Store, host: Host, *, wanted: PruneFilter) -> Pruned:
    """Remove the containers that do not run."""
    assert isinstance(store, LocalStore)
    gone: list[str] = []
    freed = 0
    for container in list_containers(store):
        if container.state().is_up:
            continue
        try:
            labels = dict(container.config.labels)
        except LaminaError:
            labels = {}  # a damaged configuration has none, and can be removed all the same
        if not wanted.takes(container.created, labels):
            continue
        try:
            size = tree_bytes(container.directory) + tree_bytes(_snapshot_of(store, container.id))
            find(store, container.id, host=host).remove()
        except LaminaError as error:
            if error.kind in {Kind.NOT_FOUND, Kind.CONFLICT}:
                continue  # it was removed, or started, meanwhile
            raise
        freed += size
        gone.append(container.id)
    freed += _remove_strays(store)
    note(store.root, "container", "prune", "", {"reclaimed": str(freed)})
    return Pruned(tuple(gone), freed)


def prune_volumes(store: Store, *, all_unused: bool, wanted: PruneFilter) -> Pruned:
    """Remove the anonymous volumes, or `all_unused` ones, that no container has."""
    gone: list[str] = []
    freed = 0
    for use in list_volumes(store):
        volume = use.volume
        if use.containers or not (all_unused or volume.is_anonymous):
            continue
        if not wanted.takes(volume.created, dict(volume.labels)):
            continue
        size = tree_bytes(volumes.directory_of(store.root, volume.name))
        try:
            volumes.remove(store, volume.name)
        except LaminaError as error:
            if error.kind in {Kind.NOT_FOUND, Kind.CONFLICT}:
                continue  # removed, or given to a container, meanwhile
            raise
        freed += size
        gone.append(volume.name)
    freed += volumes.remove_rubbish(store)
    note(store.root, "volume", "prune", "", {"reclaimed": str(freed)})
    return Pruned(tuple(gone), freed)


def _remove_strays(store: LocalStore) -> int:
    """Remove what killed processes left of containers that they made; bytes freed."""
    names = os.listdir(os.path.join(store.root, "containers"))  # before the records are read
    known = {document.id for document in store.documents.list("container")}
    return sum(remove_stray(store, name) for name in names if name not in known)


def _snapshot_of(store: LocalStore, key: str) -> str:
    try:
        return os.path.dirname(store.snapshots.layer_dir(key))
    except LaminaError:
        return os.path.join(store.snapshots.directory, "none")


def prune_images(
    store: Store,
    *,
    all_unused: bool,
    wanted: PruneFilter,
    platform: Platform,
    emit: Emitter = silent,
) -> Pruned:
    """Remove dangling images, or `all_unused` ones; those that a container uses stay. What nothing
    needs any more, and downloads that were broken off, go too.
    """
    with store.lease("prune"):
        held = held_names(store)
        users = image_users(store)
        doomed = [
            each
            for each in held
            if (all_unused or each.is_dangling)
            and not users_of(each, users, held)
            and (wanted == PruneFilter() or _matches(store, each.named.target, wanted, platform))
        ]
        removals = forget(store, doomed, held)
    freed = collect_garbage(store, emit=emit)
    note(store.root, "image", "prune", "", {"reclaimed": str(freed)})
    return Pruned(tuple(f"{each.verb.lower()}: {each.subject}" for each in removals), freed)


def _matches(store: Store, target: Descriptor, wanted: PruneFilter, platform: Platform) -> bool:
    """Whether the filter takes the image; never one that cannot be read."""
    try:
        image = open_preferred(store, target, platform)
    except LaminaError:
        return False
    return wanted.takes(created_of(image), dict(image.config().config.labels))


def prune_cache(store: Store, limits: Limits, *, emit: Emitter = silent) -> Pruned:
    """Remove build cache, the least recently used first, as far as the limits say."""
    assert isinstance(store, LocalStore)
    disk = os.statvfs(store.root)
    gone = choose(cache_usage(store), limits, free_bytes=disk.f_bavail * disk.f_frsize)
    freed = collect(store, evict=gone, emit=emit).bytes
    return Pruned(gone.ids, freed)


def in_order(entries: Iterable[CacheEntry]) -> list[CacheEntry]:
    """Cache entries, the least recently used first."""
    return sorted(entries, key=lambda entry: (entry.last_used, entry.id))
