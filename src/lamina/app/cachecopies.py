# SPDX-License-Identifier: Apache-2.0
"""Cache mounts taken to other machines: to and from image layouts, archives and registries.

What travels is an OCI artifact: a manifest with one layer a cache, the layer's tar being the cache's
tree as it is, and a config (`CONFIG`) that says which cache each layer is. The same trees give the
same bytes, so that only caches that changed are sent again.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, contextmanager

from lamina.app.cachemounts import first_of_each
from lamina.errors import Kind, LaminaError
from lamina.exporter.destination import write_aside
from lamina.exporter.ports import Exported
from lamina.layer.apply import extract
from lamina.layer.compress import decompressed
from lamina.layer.create import create_layer
from lamina.layer.entry import EntryType
from lamina.layer.tarread import read_tar
from lamina.layer.walk import tree_items
from lamina.registry.graph import copy_graph
from lamina.registry.journal import StoreJournal
from lamina.registry.layout import LayoutEnd
from lamina.registry.upload import RegistrySink
from lamina.spec import mediatype
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import Digest
from lamina.spec.document import MAX_DOCUMENT, dump_bounded
from lamina.spec.manifest import Manifest
from lamina.spec.reference import Reference
from lamina.start.record import Record, replace
from lamina.store.cachemounts import hold_cache, put_cache, walk
from lamina.system.temporary import make_temporary
from lamina.system.userns import enter, is_host_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import IO

    from lamina.app.copying import Place
    from lamina.layer.entry import Items
    from lamina.registry.client import Registries
    from lamina.registry.ports import Source
    from lamina.store.cachemounts import StoredCache
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken, Work

CONFIG = "application/vnd.lamina.cachemounts.config.v1+json"


# The artifact -------------------------------------------------------------------------------------


class Entry(Record):
    """A cache of an artifact: its mount's id (with namespace), its first content, its layer."""

    id: str
    variant: str
    layer: Descriptor


def encode(entries: Sequence[Entry]) -> tuple[Manifest, bytes]:
    """The manifest and the config of an artifact that holds these caches."""
    ordered = sorted(entries, key=lambda entry: (entry.id, entry.variant))
    caches = [
        {"id": entry.id, "variant": entry.variant, "layer": str(entry.layer.digest)}
        for entry in ordered
    ]
    config = dump_bounded({"version": 1, "caches": caches}, what="list of caches")
    descriptor = Descriptor(CONFIG, Digest.of(config), len(config))
    return Manifest.make(descriptor, [entry.layer for entry in ordered]), config


def decode(manifest: Manifest, config: bytes) -> list[Entry]:
    """The caches of an artifact. Raises LaminaError of kind INVALID."""
    try:
        document = json.loads(config)
        caches = [(str(c["id"]), str(c["variant"]), str(c["layer"])) for c in document["caches"]]
        version = document["version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _invalid("its config is malformed") from error
    if version != 1:
        raise _invalid(f"it has version {version!r}, made by a newer lamina")
    if [layer for *_, layer in caches] != [str(layer.digest) for layer in manifest.layers]:
        raise _invalid("its config and its manifest name other layers")
    if len({(id, variant) for id, variant, _ in caches}) != len(caches):
        raise _invalid("it has one cache twice")
    if any("/" not in id for id, *_ in caches):
        raise _invalid("a cache has no namespace")
    for layer in manifest.layers:
        if layer.media_type not in mediatype.OCI_LAYER_OF.values():
            raise _invalid(f"a layer has the type {layer.media_type!r}")
    return [
        Entry(id, variant, layer)
        for (id, variant, _), layer in zip(caches, manifest.layers, strict=True)
    ]


def _invalid(why: str) -> LaminaError:
    return LaminaError(f"invalid artifact of cache mounts: {why}", kind=Kind.INVALID)


# Export -------------------------------------------------------------------------------------------


def export_caches(
    store: Store,
    registries: Registries,
    caches: Sequence[StoredCache],
    target: Place,
    *,
    compression: str = "zstd",
    wait: bool = False,
    work: Work,
) -> Digest:
    """Write the caches to `target` as one artifact, in place of what had its name; its digest.

    Each cache is held alone while it is read: it is written as it was at one moment.

    Raises:
        CacheInUse: a step holds one of them, and not `wait`.
        LaminaError: INVALID for two directories of one cache, or a file that no layer can hold;
            what the target refuses.
    """
    if len({cache.key for cache in caches}) != len(caches):
        raise LaminaError("two directories of one cache cannot go together", kind=Kind.INVALID)
    with store.lease("cache export"), _scratch(store) as scratch:
        entries = [
            _pack(store, cache, scratch, compression, wait=wait, cancel=work.cancel)
            for cache in caches
        ]
        manifest, config = encode(entries)
        scratch.put_document(manifest.config, config)
        root = manifest.descriptor()
        scratch.put_document(root, manifest.raw)
        _deliver(store, registries, scratch, root, target, work=work)
    return root.digest


@contextmanager
def _scratch(store: Store) -> Iterator[LayoutEnd]:
    """An image layout on the store's disk, gone at the end."""
    place = make_temporary(os.path.join(store.root, "tmp", "caches"), "cache-")
    try:
        layout = LayoutEnd(os.path.join(place.path, "layout"))
        layout.create()
        yield layout
    finally:
        place.remove()


def _pack(
    store: Store,
    cache: StoredCache,
    scratch: LayoutEnd,
    compression: str,
    *,
    wait: bool,
    cancel: CancelToken,
) -> Entry:
    """The cache's tree as a layer in the scratch layout."""
    enter()  # steps made files of other owners
    blobs = os.path.join(scratch.path, "blobs", "sha256")
    os.makedirs(blobs, exist_ok=True)
    aside = os.path.join(blobs, "new")
    held = hold_cache(store.root, cache, cancel=cancel, wait=wait)
    try:
        with open(aside, "wb") as file:
            made = create_layer(
                tree_items(held.path, include_root=True),
                file.write,
                compression=compression,
                cancel=cancel,
            )
    except LaminaError as error:
        raise error.about(f"the cache {cache.name} ({cache.short})") from error
    finally:
        held.release()
    assert made.digest is not None
    os.rename(aside, os.path.join(blobs, made.digest.hex))
    layer = Descriptor(mediatype.OCI_LAYER_OF[compression], made.digest, made.compressed_size)
    return Entry(cache.id, cache.variant, layer)


def _deliver(
    store: Store,
    registries: Registries,
    scratch: LayoutEnd,
    root: Descriptor,
    target: Place,
    *,
    work: Work,
) -> None:
    if target.kind == "oci-archive":
        _write_archive(scratch, root, target, work.cancel)
        return
    with ExitStack() as stack:
        if target.kind == "docker":
            reference = Reference.parse(target.name).with_default_tag()
            if reference.digest is not None:
                raise LaminaError(
                    f"cannot export to {target.name!r}: a name with a digest", kind=Kind.USAGE
                )
            sink: RegistrySink | LayoutEnd = RegistrySink(
                registries.repository(reference, for_push=True).own,
                root=root.digest,
                tags=(reference.tag,),
                journal=StoreJournal(store, clock=work.clock),
                mounts=None,
            )
        else:
            sink = LayoutEnd(target.path)
            sink.create()
            stack.enter_context(sink.locked())
        copy_graph(scratch, sink, root, work=work)
        if isinstance(sink, LayoutEnd):
            sink.replace_ref(root, target.name)


def _write_archive(
    scratch: LayoutEnd, root: Descriptor, target: Place, cancel: CancelToken
) -> None:
    """The scratch layout as a tar, the same bytes for the same caches."""
    scratch.set_ref(root, target.name)

    def plain() -> Items:
        for entry, content in tree_items(scratch.path, owner=(0, 0)):
            mode = 0o755 if entry.mode & 0o100 else 0o644
            yield replace(entry, mode=mode, mtime_ns=0), content

    def fill(write: Callable[[bytes], object]) -> None:
        create_layer(plain(), write, compression="uncompressed", cancel=cancel)

    write_aside(target.path, fill, Exported(None, None)).finalize()


# Import -------------------------------------------------------------------------------------------


def import_caches(
    store: Store,
    registries: Registries,
    source: Place,
    *,
    ids: Sequence[str] = (),
    wait: bool = False,
    work: Work,
) -> list[StoredCache]:
    """Make the caches of an artifact (of these mounts' `ids`, or all) the store's, each in place of
    what the store has of it, one after the other; what was made.

    A cache is unpacked aside by the code that unpacks layers, then put in place while nobody holds
    the old one: a build sees the old content or the new.

    Raises:
        CacheInUse: a step holds one of them, and not `wait`.
        LaminaError: INTEGRITY, INVALID for a hostile or damaged artifact; NOT_FOUND.
    """
    made = []
    with store.lease("cache import"), _scratch(store) as scratch:
        with _opened(registries, source, scratch, work.cancel) as (end, root):
            if root.media_type not in mediatype.MANIFESTS:
                raise _not_caches(source)
            manifest = Manifest.parse(end.document(root), media_type=root.media_type)
            if manifest.config.media_type != CONFIG:
                raise _not_caches(source)
            if manifest.config.size > MAX_DOCUMENT:
                raise _invalid("its config is too large")
            copy_graph(end, scratch, manifest.config, work=work)
            for entry in _wanted(decode(manifest, scratch.document(manifest.config)), ids):
                copy_graph(end, scratch, entry.layer, work=work)
                content = os.path.join(os.path.dirname(scratch.path), "fs")
                os.mkdir(content)
                try:
                    _unpack(scratch, entry, content, work.cancel)
                except LaminaError as error:
                    raise error.about(f"cache {entry.id.partition('/')[2]}") from error
                key = put_cache(
                    store.root,
                    entry.id,
                    content,
                    variant=entry.variant,
                    cancel=work.cancel,
                    wait=wait,
                )
                made.append(key)
        return first_of_each(cache for cache in walk(store.root) if cache.key in made)


def _wanted(entries: list[Entry], ids: Sequence[str]) -> list[Entry]:
    names = {entry.id.partition("/")[2] for entry in entries}
    for id in ids:
        if id not in names:
            raise LaminaError(
                f"the artifact has no cache {id}",
                kind=Kind.NOT_FOUND,
                hint=f"it has: {', '.join(sorted(names))}",
            )
    return [entry for entry in entries if not ids or entry.id.partition("/")[2] in ids]


def _not_caches(source: Place) -> LaminaError:
    return LaminaError(
        f"{source.name if source.kind == 'docker' else source.path} does not hold cache mounts",
        kind=Kind.INVALID,
        hint="'lamina cache export' makes what can be imported",
    )


@contextmanager
def _opened(
    registries: Registries, source: Place, scratch: LayoutEnd, cancel: CancelToken
) -> Iterator[tuple[Source, Descriptor]]:
    if source.kind == "docker":
        reference = Reference.parse(source.name).with_default_tag()
        repository = registries.repository(reference)
        yield repository, repository.resolve(str(reference.digest or reference.tag)).descriptor
        return
    path = source.path
    if source.kind == "oci-archive":
        path = os.path.join(os.path.dirname(scratch.path), "archive")
        os.mkdir(path)
        _read_archive(source.path, path, cancel)
    layout = LayoutEnd(path)
    yield layout, layout.find(source.name)


class _Checked:
    """A stream whose reading ends when the token is set."""

    def __init__(self, stream: IO[bytes], cancel: CancelToken) -> None:
        self._stream = stream
        self._cancel = cancel

    def read(self, size: int = -1, /) -> bytes:
        self._cancel.check()
        return self._stream.read(size)


def _read_archive(path: str, target: str, cancel: CancelToken) -> None:
    """Unpack an archive of a layout, which has nothing but files and directories."""

    def plain(file: IO[bytes]) -> Items:
        for entry, content in read_tar(_Checked(file, cancel)):  # type: ignore[arg-type]  # only read() is used
            if entry.type not in {EntryType.FILE, EntryType.DIR}:
                raise _invalid(f"{path} has something that is neither a file nor a directory")
            yield entry, content

    with open(path, "rb") as file:
        extract(plain(file), target)


def _unpack(scratch: LayoutEnd, entry: Entry, target: str, cancel: CancelToken) -> None:
    with scratch.open(entry.layer) as file:
        stream = decompressed(_Checked(file, cancel))  # type: ignore[arg-type]  # only read() is used
        enter()
        extract(stream, target, owners=True, privileged=is_host_root())
    os.unlink(os.path.join(scratch.path, "blobs", "sha256", entry.layer.digest.hex))
