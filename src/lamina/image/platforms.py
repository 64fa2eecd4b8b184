# SPDX-License-Identifier: Apache-2.0
"""Images for several platforms: an index of manifests, and how one more platform joins a name.

Joining is what `bootstrap --arch` does, as a pull of another platform would: the name then means an
index with both. Everything else that sets a name (build, tag, load, import) moves it, as in Docker.
"""

from __future__ import annotations

import os

from lamina.errors import Kind, LaminaError
from lamina.image.names import dangling_name, keep_orphans
from lamina.image.view import Image
from lamina.spec import mediatype
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.manifest import Index
from lamina.start.record import replace
from lamina.system.locks import FileLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.spec.descriptor import Descriptor
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken


def add_index(
    store: Store,
    entries: Sequence[Descriptor],
    *,
    media_type: str = mediatype.OCI_INDEX,
    annotations: Sequence[tuple[str, str]] = (),
) -> Descriptor:
    """The index of these manifests (each with its platform), written to the store."""
    index = Index.make(entries, media_type=media_type, annotations=annotations)
    store.content.add(index.raw)
    return index.descriptor()


def platform_entries(store: Store, target: Descriptor) -> tuple[Descriptor, ...]:
    """The images behind `target`, each with its platform: an index's own, or the manifest.

    Raises:
        LaminaError: NOT_FOUND, INTEGRITY or INVALID for a document that is missing or damaged.
    """
    if target.media_type in mediatype.INDEXES:
        raw = store.content.read(target.digest, limit=MAX_DOCUMENT)
        return Index.parse(raw, media_type=target.media_type).manifests
    platform = Image.open(store, target).config().platform
    return (replace(target, platform=platform, annotations=()),)


def join_names(
    store: Store,
    names: Sequence[str],
    target: Descriptor,
    platform: Platform,
    *,
    cancel: CancelToken | None = None,
) -> tuple[Descriptor, ...]:
    """Let each name mean `target` for `platform`, and what it meant before for the others.

    A name that meant nothing, or the same platform only, points to the manifest itself. An image
    that is replaced is kept as dangling if it has no other name. The targets of the names, in
    order. Processes that join at the same time wait for each other.
    """
    entry = replace(target, platform=platform, annotations=())
    targets = []
    os.makedirs(f"{store.root}/locks", exist_ok=True)
    with FileLock(f"{store.root}/locks/join-names", cancel=cancel):
        for name in names:
            others, replaced = _others(store, name, entry)
            joined = add_index(store, others) if len(others) > 1 else target
            _move(store, name, joined, replaced)
            _forget_dangling(store, (joined, target))
            targets.append(joined)
    return tuple(targets)


def _others(
    store: Store, name: str, entry: Descriptor
) -> tuple[list[Descriptor], list[Descriptor]]:
    """What the name will hold, `entry` in the place of its platform, and what that replaces."""
    named = store.metadata.get_name(name)
    if named is None:
        return [entry], []
    try:
        entries = platform_entries(store, named.target)
    except LaminaError as error:
        if error.kind not in {Kind.NOT_FOUND, Kind.INTEGRITY, Kind.INVALID}:
            raise
        return [entry], []  # a damaged image is nothing to add to
    held: list[Descriptor] = []
    replaced = []
    for old in entries:
        if not _is_same(old.platform, entry.platform):
            held.append(old)
            continue
        if entry not in held:
            held.append(entry)
        if old.digest != entry.digest:
            replaced.append(replace(old, platform=None, annotations=()))
    return (held if entry in held else [*held, entry]), replaced


def _is_same(one: Platform | None, other: Platform | None) -> bool:
    return one is not None and other is not None and str(one) == str(other)


def _move(store: Store, name: str, target: Descriptor, replaced: Sequence[Descriptor]) -> None:
    """Point the name to `target`; what it meant before is part of that, except `replaced`."""
    keep_orphans(store, replaced, leaving=[name], target=target)
    store.metadata.set_names([name], target)


def _forget_dangling(store: Store, targets: Sequence[Descriptor]) -> None:
    """What has a name now, by itself or in an index, is not dangling."""
    names = dict.fromkeys(dangling_name(target) for target in targets)
    if gone := [name for name in names if store.metadata.get_name(name) is not None]:
        store.metadata.delete_names(gone)
