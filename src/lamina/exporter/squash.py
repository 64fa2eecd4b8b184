# SPDX-License-Identifier: Apache-2.0
"""`--squash`: one layer of everything a build adds to its base (docs/adr/0060).

The layer is read from the new layers mounted over each other without the base, so what they
deleted of each other's files is not in it. What they hide of the base is worked out beside that:
a whiteout for what is gone, an opaque marker for a directory that came in the place of another.
"""

from __future__ import annotations

import heapq
import os
import stat

from lamina.exporter.derived import derived_layer, note_derived
from lamina.image.blobs import fresh_ingest
from lamina.image.unpack import ensure_snapshot
from lamina.layer.create import create_layer
from lamina.layer.entry import OPAQUE_WHITEOUT, WHITEOUT_PREFIX, EntryType, join, sort_key, split
from lamina.layer.walk import is_whiteout, tree_items, whiteout
from lamina.spec.config import History
from lamina.spec.descriptor import Descriptor
from lamina.spec.identity import chain_id, chain_ids
from lamina.spec.mediatype import OCI_LAYER_OF
from lamina.start.record import replace
from lamina.system.mounts import opened_layers, overlay_fd
from lamina.system.overlay import OverlayMount
from lamina.system.paths import lstat_beneath
from lamina.system.xattrs import is_opaque, xattrs_beneath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from lamina.exporter.ports import BuildResult
    from lamina.layer.entry import Item
    from lamina.spec.digest import DiffID
    from lamina.store.ports import Store
    from lamina.tasks import Work

KIND = "squashed-layer"  # (base and new layers) -> diffID of the one layer


def squashed(result: BuildResult, store: Store, *, work: Work) -> BuildResult:
    """The result with one layer above the base; history keeps its texts, and says that it was done.

    Raises:
        LaminaError: as `ensure_snapshot`; UNSUPPORTED on kernels without detached mounts.
    """
    new = result.diff_ids[result.base_layers :]
    if len(new) < 2:
        return result
    diff_id = _layer(result, store, work=work)
    history = tuple(
        entry if entry.created else replace(entry, empty_layer=True)
        for entry in result.config.history
    )
    note = History(comment=f"merge {len(new)} layers into one")
    return replace(
        result,
        diff_ids=(*result.diff_ids[: result.base_layers], diff_id),
        config=replace(result.config, history=(*history, note)),
    )


def _layer(result: BuildResult, store: Store, *, work: Work) -> DiffID:
    """The one layer, in the store; the outcome is remembered."""
    key = f"{chain_id(result.diff_ids)}@{result.base_layers}"
    known = derived_layer(store, KIND, key)
    if known is not None:
        return known
    diff_id = _write(result, store, key, work=work)
    note_derived(store, KIND, key, diff_id)
    return diff_id


def _write(result: BuildResult, store: Store, key: str, *, work: Work) -> DiffID:
    ensure_snapshot(store, result.diff_ids, work=work)
    chains = chain_ids(result.diff_ids)
    layers = [store.snapshots.layer(str(chain)) for chain in chains[result.base_layers :]]
    base = store.snapshots.view(chains[result.base_layers - 1] if result.base_layers else None)
    merged = OverlayMount(tuple(reversed(layers)))
    with (
        opened_layers(layers) as uppers,
        _Tree(merged) as tree,
        _Tree(base) as below,
        fresh_ingest(store, f"squash {key}") as ingest,
    ):
        items = _items(tree, below, [os.fsencode(upper) for upper in uppers])
        created = create_layer(items, ingest.write, digest=ingest.digest, cancel=work.cancel)
        digest = ingest.commit(digest=created.digest, size=created.compressed_size)
    blob = Descriptor(OCI_LAYER_OF["gzip"], digest, created.compressed_size)
    store.metadata.put_layer(created.diff_id, created.size, blob)
    return created.diff_id


class _Tree:
    """A mount that nobody else sees; `path` leads to it inside the block."""

    def __init__(self, mount: OverlayMount) -> None:
        self._mount = mount
        self._fd = -1
        self.path = b""

    def __enter__(self) -> Self:
        if self._mount.lowers:
            self._fd = overlay_fd(self._mount)
            self.path = b"/proc/self/fd/%d" % self._fd
        return self

    def __exit__(self, *exc: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def status(self, path: bytes) -> os.stat_result | None:
        """What is at `path`; None if nothing is."""
        return _status(self.path, path) if self.path else None


def _items(tree: _Tree, below: _Tree, uppers: Sequence[bytes]) -> Iterator[Item]:
    gone = sorted(_deletions(tree, below, uppers), key=sort_key)
    marks: Iterator[Item] = ((whiteout(path), b"") for path in gone)
    found = _marked(tree, below, uppers)
    return heapq.merge(found, marks, key=lambda item: sort_key(item[0].path))


def _marked(tree: _Tree, below: _Tree, uppers: Sequence[bytes]) -> Iterator[Item]:
    """The merged tree, with an opaque marker in each directory that hides one of the base."""
    for entry, content in tree_items(os.fsdecode(tree.path)):
        yield entry, content
        if entry.type is not EntryType.DIR or below.status(entry.path) is None:
            continue
        if any(_hides(upper, entry.path) for upper in uppers):
            yield whiteout(join(entry.path, OPAQUE_WHITEOUT)), b""


def _hides(upper: bytes, path: bytes) -> bool:
    """Whether the layer hides what is below it at `path`, a directory of the merged tree."""
    status = _status(upper, path)
    if status is None:
        return False
    return not stat.S_ISDIR(status.st_mode) or is_opaque(xattrs_beneath(upper, path))


def _deletions(tree: _Tree, below: _Tree, uppers: Sequence[bytes]) -> set[bytes]:
    """The whiteouts that are still needed: of what the base has and the merged tree does not,
    in a directory that both have.
    """
    found: set[bytes] = set()
    for upper in uppers:
        for path in _whiteouts(upper):
            parent, name = split(path)
            inside = tree.status(parent) if parent else os.stat(tree.path)
            if inside is None or not stat.S_ISDIR(inside.st_mode):
                continue
            if tree.status(path) is None and below.status(path) is not None:
                found.add(join(parent, WHITEOUT_PREFIX + name))
    return found


def _whiteouts(upper: bytes) -> Iterator[bytes]:
    """The paths of a layer's whiteouts."""
    todo = [b""]
    while todo:
        directory = todo.pop()
        with os.scandir(join(upper, directory) if directory else upper) as entries:
            for entry in entries:
                path = join(directory, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    todo.append(path)
                elif is_whiteout(entry.stat(follow_symlinks=False)):
                    yield path


def _status(root: bytes, path: bytes) -> os.stat_result | None:
    try:
        return lstat_beneath(root, path)
    except (FileNotFoundError, NotADirectoryError):
        return None
