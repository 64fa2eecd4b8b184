# SPDX-License-Identifier: Apache-2.0
"""Images as archives: OCI image layout (tar or directory) and docker-archive.

A docker-archive is also an OCI image layout, as `docker save` has written since version 25: blobs
by digest, layers uncompressed (their digest is the diffID), `manifest.json` and `repositories`
for older readers, `index.json` for newer ones. Members are sorted, owned by 0:0 and dated
1970-01-01, so the same images give the same bytes. Every blob is verified while it is copied.
"""

from __future__ import annotations

import hashlib
import os

from lamina.errors import Kind, LaminaError
from lamina.image.view import open_uncompressed
from lamina.layer.entry import Entry, EntryType
from lamina.layer.tarwrite import BLOCK, END_OF_ARCHIVE, header
from lamina.spec import mediatype
from lamina.spec.config import ImageConfig
from lamina.spec.descriptor import Descriptor, annotations_of
from lamina.spec.document import MAX_DOCUMENT, dump, dump_bounded
from lamina.spec.identity import chain_id
from lamina.spec.manifest import Index, Manifest, children
from lamina.spec.reference import Reference, is_dangling
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import IO

    from lamina.spec.digest import ChainID, DiffID, Digest
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

REF_NAME = "org.opencontainers.image.ref.name"  # image-spec annotations.md: the tag
FULL_NAME = "io.containerd.image.name"  # containerd, BuildKit, podman: the whole reference
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_READ = 1 << 18  # what is read is still in the processor's cache when it is hashed and written


class ArchiveImage(Record):
    """An image to write: `target` is a manifest (or, for OCI only, an index) in the store."""

    target: Descriptor
    names: tuple[str, ...] = ()


class _Member(Record):
    """A file of the archive: `data` whole, or `open` gives its bytes, checked against `digest`
    unless they are the process's own (`BlobInfo.is_own`).
    """

    name: str
    size: int
    data: bytes = b""
    open: Callable[[], IO[bytes]] | None = None
    digest: Digest | None = None
    is_own: bool = False


def write_oci_archive(
    store: Store,
    images: Sequence[ArchiveImage],
    write: Callable[[bytes], object],
    *,
    cancel: CancelToken,
) -> None:
    """Write the images as a tar of an OCI image layout.

    Raises:
        LaminaError: NOT_FOUND or INTEGRITY for a blob that is missing or damaged.
    """
    _write_members(_oci_members(store, images), write, cancel)


def write_docker_archive(
    store: Store,
    images: Sequence[ArchiveImage],
    write: Callable[[bytes], object],
    *,
    cancel: CancelToken,
) -> None:
    """Write the images as `docker save` does. Raises as `write_oci_archive`; INVALID for an index."""
    _write_members(_docker_members(store, images), write, cancel)


def write_oci_directory(
    store: Store, images: Sequence[ArchiveImage], path: str, *, cancel: CancelToken
) -> None:
    """Add the images to the OCI image layout at `path` (made if missing).

    Blobs come first and `index.json` last, by rename; entries with another ref name are kept.

    Raises:
        LaminaError: CONFLICT if `path` holds something that is not an image layout.
    """
    os.makedirs(path, exist_ok=True)
    kept = _kept_entries(path, images)
    for member in sorted(_oci_members(store, images, kept=kept), key=_index_last):
        target = os.path.join(path, member.name)
        if member.digest is not None and os.path.exists(target):
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _write_file(target, member, cancel)


def _index_last(member: _Member) -> tuple[bool, str]:
    return member.name == "index.json", member.name


def _write_file(target: str, member: _Member, cancel: CancelToken) -> None:
    aside = f"{target}.lamina-partial"
    try:
        with open(aside, "wb") as file:
            file.writelines(_pieces(member, cancel))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, target)
    except BaseException:
        if os.path.exists(aside):
            os.unlink(aside)
        raise


def _pieces(member: _Member, cancel: CancelToken) -> Iterator[bytes]:
    """The member's bytes in views of one buffer; fails if they are not what the digest says."""
    if member.open is None:
        yield member.data
        return
    assert member.digest is not None
    hasher = None if member.is_own else hashlib.new(member.digest.algorithm)
    left = member.size
    buffer = memoryview(bytearray(min(left + 1, _READ)))
    file = member.open()
    try:
        while count := file.readinto(buffer):  # type: ignore[attr-defined]  # all binary readers have it
            cancel.check()
            left -= count
            if left < 0:
                break
            if hasher is not None:
                hasher.update(buffer[:count])
            yield buffer[:count]  # type: ignore[misc]  # as good as bytes until the next piece
    finally:
        file.close()
    if left or (hasher is not None and hasher.hexdigest() != member.digest.hex):
        raise LaminaError(
            f"blob {member.digest} in the store is damaged",
            kind=Kind.INTEGRITY,
            hint="rebuild or reload the image",
        )


def _kept_entries(path: str, images: Sequence[ArchiveImage]) -> tuple[Descriptor, ...]:
    """Entries of an existing layout that the new ones do not replace."""
    if not os.listdir(path):
        return ()
    if not os.path.isfile(os.path.join(path, "oci-layout")):
        raise LaminaError(
            f"{path} is not empty and not an OCI image layout",
            kind=Kind.CONFLICT,
            hint="give an empty or a new directory",
        )
    try:
        with open(os.path.join(path, "index.json"), "rb") as file:
            index = Index.parse(file.read(MAX_DOCUMENT + 1))
    except FileNotFoundError:
        return ()
    new = {entry.digest for image in images for entry in _entries(image)}
    names = {entry.annotation(REF_NAME) for image in images for entry in _entries(image)}
    return tuple(
        entry
        for entry in index.manifests
        if entry.digest not in new
        and (entry.annotation(REF_NAME) is None or entry.annotation(REF_NAME) not in names)
    )


def _write_members(
    members: Sequence[_Member], write: Callable[[bytes], object], cancel: CancelToken
) -> None:
    """The members as a tar, directories before what they hold."""
    directories: set[str] = set()
    for member in sorted(members, key=lambda found: found.name.split("/")):
        parts = member.name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            directory = "/".join(parts[:depth])
            if directory not in directories:
                directories.add(directory)
                write(header(Entry(directory.encode(), EntryType.DIR, 0o755)))
        write(header(Entry(member.name.encode(), EntryType.FILE, 0o644, size=member.size)))
        for piece in _pieces(member, cancel):
            write(piece)
        write(bytes(-member.size % BLOCK))
    write(END_OF_ARCHIVE)


def _file(name: str, data: bytes) -> _Member:
    return _Member(name, len(data), data)


def blob_path(digest: Digest) -> str:
    """Where an image layout keeps a blob (image-layout.md §Blobs)."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _entries(image: ArchiveImage) -> list[Descriptor]:
    """One entry of `index.json` a name; an image without names has one without annotations."""
    entries = []
    for name in image.names:
        if is_dangling(name):
            continue
        reference = Reference.parse(name)
        notes = dict(image.target.annotations) | {REF_NAME: reference.tag, FULL_NAME: name}
        entries.append(replace(image.target, annotations=annotations_of(notes)))
    return entries or [replace(image.target, annotations=())]


def _oci_members(
    store: Store, images: Sequence[ArchiveImage], *, kept: Sequence[Descriptor] = ()
) -> list[_Member]:
    blobs: dict[Digest, _Member] = {}
    for image in images:
        _add_graph(store, image.target, blobs)
    index = Index.make([*kept, *(entry for image in images for entry in _entries(image))])
    return [*blobs.values(), _file("oci-layout", _LAYOUT), _file("index.json", index.raw)]


def _add_graph(store: Store, root: Descriptor, blobs: dict[Digest, _Member]) -> None:
    """Every blob that can be reached from `root`."""
    todo = [root]
    while todo:
        descriptor = todo.pop()
        if descriptor.digest in blobs:
            continue
        if descriptor.media_type in mediatype.MANIFESTS | mediatype.INDEXES:
            raw = store.content.read(descriptor.digest, limit=MAX_DOCUMENT)
            blobs[descriptor.digest] = _file(blob_path(descriptor.digest), raw)
            todo += children(descriptor.media_type, raw)
        else:
            blobs[descriptor.digest] = _stored(store, descriptor)


def _stored(store: Store, descriptor: Descriptor) -> _Member:
    if not store.content.exists(descriptor.digest):
        raise LaminaError(
            f"blob {descriptor.digest} is not in the store",
            kind=Kind.NOT_FOUND,
            hint="rebuild or reload the image",
        )
    digest = descriptor.digest
    return _Member(
        blob_path(digest),
        descriptor.size,
        open=lambda: store.content.open(digest),
        digest=digest,
        is_own=store.content.info(digest).is_own,
    )


def _docker_members(store: Store, images: Sequence[ArchiveImage]) -> list[_Member]:
    members: dict[str, _Member] = {}
    documents: list[dict[str, object]] = []
    repositories: dict[str, dict[str, str]] = {}
    entries: list[Descriptor] = []
    for image in images:
        manifest, config_raw, layers, top = _uncompressed_image(store, image.target)
        for layer in layers:
            members[layer.name] = layer
        for descriptor, raw in (
            (manifest.config, config_raw),
            (manifest.descriptor(), manifest.raw),
        ):
            path = blob_path(descriptor.digest)
            members[path] = _file(path, raw)
        references = [Reference.parse(name) for name in image.names if not is_dangling(name)]
        documents.append(
            {
                "Config": blob_path(manifest.config.digest),
                "RepoTags": [reference.familiar() for reference in references] or None,
                "Layers": [layer.name for layer in layers],
            }
        )
        entries += _entries(ArchiveImage(manifest.descriptor(), image.names))
        for reference in references:
            tags = repositories.setdefault(reference.familiar_name(), {})
            tags[reference.tag] = (top or manifest.config.digest).hex
    members["index.json"] = _file("index.json", Index.make(entries).raw)
    members["oci-layout"] = _file("oci-layout", _LAYOUT)
    members["manifest.json"] = _file(
        "manifest.json", dump_bounded(documents, what="archive's manifest.json")
    )
    if repositories:
        sorted_tags = {name: dict(sorted(tags.items())) for name, tags in repositories.items()}
        members["repositories"] = _file("repositories", dump(dict(sorted(sorted_tags.items()))))
    return list(members.values())


def _uncompressed_image(
    store: Store, target: Descriptor
) -> tuple[Manifest, bytes, list[_Member], ChainID | None]:
    """The image with its layers as plain tars: a manifest for them, the config, the layers."""
    if target.media_type in mediatype.INDEXES:
        raise LaminaError(
            f"{target.digest} is an index of several images, which a docker-archive cannot hold",
            kind=Kind.INVALID,
            hint="use --format oci-archive",
        )
    raw = store.content.read(target.digest, limit=MAX_DOCUMENT)
    stored = Manifest.parse(raw, media_type=target.media_type)
    config_raw = store.content.read(stored.config.digest, limit=MAX_DOCUMENT)
    diff_ids = ImageConfig.parse(config_raw).diff_ids
    layers = [
        _plain_layer(store, blob, diff_id)
        for blob, diff_id in zip(stored.layers, diff_ids, strict=True)
    ]
    described = [
        Descriptor(mediatype.OCI_LAYER, diff_id, layer.size)
        for layer, diff_id in zip(layers, diff_ids, strict=True)
    ]
    config = Descriptor(mediatype.OCI_CONFIG, stored.config.digest, len(config_raw))
    return Manifest.make(config, described), config_raw, layers, chain_id(diff_ids)


def _plain_layer(store: Store, blob: Descriptor, diff_id: DiffID) -> _Member:
    _stored(store, blob)
    known = store.metadata.get_layer(diff_id)
    if blob.digest == diff_id:
        return _stored(store, blob)
    # a rebuilt database does not know sizes: 0
    size = (known.size if known is not None else 0) or _tar_size(store, blob)
    digest = blob.digest
    return _Member(
        blob_path(diff_id),
        size,
        open=lambda: open_uncompressed(store, digest),
        digest=diff_id,
    )


def _tar_size(store: Store, blob: Descriptor) -> int:
    total = 0
    with open_uncompressed(store, blob.digest) as stream:
        while piece := stream.read(_READ):
            total += len(piece)
    return total
