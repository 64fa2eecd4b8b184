# SPDX-License-Identifier: Apache-2.0
"""A root filesystem as an image of one layer, normalised: the same files give the same digest.

Whatever wrote the tree (a tar of any dialect and order, a directory), its layer is written by our
own tar writer, sorted, so that only files, modes, owners, times and attributes count.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.image.blobs import fresh_ingest
from lamina.layer.create import create_layer
from lamina.layer.entry import WHITEOUT_PREFIX, EntryType, sort_key, split
from lamina.layer.slice import Slice
from lamina.layer.tarread import read_tar
from lamina.spec import mediatype
from lamina.spec.config import History, ImageConfig, RunConfig
from lamina.spec.descriptor import Descriptor
from lamina.spec.manifest import Manifest
from lamina.start.record import Record, replace
from lamina.system.paths import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from lamina.layer.entry import Entry, Item, Items
    from lamina.spec.digest import Digest
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

_READ = 1 << 20
if TYPE_CHECKING:
    _Node = tuple[Entry, int]  # a file, and where the spool has its content
MAX_ENTRIES = 20_000_000  # of one tree; they are sorted in memory


class PackOptions(Record):
    """What the image says of itself. `created` is RFC 3339; `clamp_mtime` POSIX seconds."""

    platform: Platform
    created: str
    config: RunConfig = RunConfig()
    comment: str = ""
    created_by: str = ""
    clamp_mtime: int | None = None
    compression: str = "gzip"


class Packed(Record):
    """The image's manifest, and its config's digest (the image id)."""

    target: Descriptor
    config: Digest


def pack_image(
    store: Store, items: Items, options: PackOptions, *, key: str, cancel: CancelToken
) -> Packed:
    """An image whose only layer holds `items`, in the store, without a name.

    `key` tells this work from others that run at the same time. The caller holds a lease.

    Raises:
        LaminaError: what reading the items raised, EXHAUSTED for a full disk.
    """
    with fresh_ingest(store, f"pack {key}") as ingest:
        try:
            created = create_layer(
                items,
                ingest.write,
                compression=options.compression,
                digest=ingest.digest,
                clamp_mtime=options.clamp_mtime,
                cancel=cancel,
            )
        except BaseException:
            ingest.abort()
            raise
        digest = ingest.commit(digest=created.digest, size=created.compressed_size)
    media_type = mediatype.OCI_LAYER_OF[options.compression]
    layer = Descriptor(media_type, digest, created.compressed_size)
    store.metadata.put_layer(created.diff_id, created.size, layer)
    config = ImageConfig(
        architecture=options.platform.architecture,
        os=options.platform.os,
        variant=options.platform.variant,
        diff_ids=(created.diff_id,),
        config=options.config,
        created=options.created,
        history=(History(options.created, created_by=options.created_by, comment=options.comment),),
    )
    raw = config.serialise()
    described = Descriptor(mediatype.OCI_CONFIG, store.content.add(raw), len(raw))
    manifest = Manifest.make(described, [layer])
    store.content.add(manifest.raw)
    return Packed(manifest.descriptor(), described.digest)


def sorted_tar_items(stream: IO[bytes], spool: IO[bytes], *, cancel: CancelToken) -> Iterator[Item]:
    """The entries of an uncompressed tar as extraction would leave them, sorted.

    Contents go through `spool`, an empty temporary file that the caller closes afterwards. The
    last of several members of one path counts; of the names of one file the first in order holds
    its content. Leading `./` and the root's own entry are dropped.

    Raises:
        LaminaError: INVALID for a malformed tar, a whiteout (a root filesystem has none), or a
            hard link to a file that is not there.
    """
    nodes: list[_Node] = []
    names: dict[bytes, int] = {}  # path -> its node: several for hard links, as inodes have
    offset = 0
    for entry, reader in read_tar(stream):
        cancel.check()
        if not entry.path:
            continue
        _check(entry, len(names))
        if entry.type is EntryType.HARDLINK:
            names[entry.path] = _linked(entry, names)
            continue
        names[entry.path] = len(nodes)
        nodes.append((entry, offset))
        if entry.type is EntryType.FILE:
            while piece := reader.read(_READ):
                spool.write(piece)
            offset += entry.size
    spool.flush()
    yield from _ordered(nodes, names, spool.fileno())


def _check(entry: Entry, count: int) -> None:
    if split(entry.path)[1].startswith(WHITEOUT_PREFIX):
        raise LaminaError(
            f"not a root filesystem: {shown(entry.path)} is a whiteout, which only layers have",
            kind=Kind.INVALID,
            hint="an image archive is read by 'lamina load'",
        )
    if count > MAX_ENTRIES:
        raise LaminaError(f"more than {MAX_ENTRIES} files", kind=Kind.EXHAUSTED)


def _linked(entry: Entry, names: dict[bytes, int]) -> int:
    node = names.get(entry.linkname)
    if node is None:
        raise LaminaError(
            f"{shown(entry.path)} is a hard link to {shown(entry.linkname)}, "
            "which is not in the archive before it",
            kind=Kind.INVALID,
        )
    return node


def _ordered(nodes: list[_Node], names: dict[bytes, int], fd: int) -> Iterator[Item]:
    first: dict[int, bytes] = {}
    for path in sorted(names, key=sort_key):
        node = names[path]
        entry, offset = nodes[node]
        if node in first:
            yield (
                replace(entry, path=path, type=EntryType.HARDLINK, linkname=first[node], size=0),
                None,
            )
            continue
        first[node] = path
        content = Slice(fd, offset, entry.size) if entry.type is EntryType.FILE else None
        yield replace(entry, path=path), content
