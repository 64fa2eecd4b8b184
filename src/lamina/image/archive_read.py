# SPDX-License-Identifier: Apache-2.0
"""Archives into the store: docker-archive and OCI image layout tars, by any tool, old or new.

Two passes over a stream that can be read twice. The first (`archive_scan`) finds the digest of
every member; then the documents decide what the archive claims to hold, and every claim is checked:
sizes, digests, diffIDs, names. Only when all hold does the second pass copy blobs, and names are
set last. So a bad archive is one error and an unchanged store.
"""

from __future__ import annotations

import json
import re

from lamina.errors import Kind, LaminaError
from lamina.image.archive_scan import Contents, InvalidArchive, Member, clean, json_of, scan
from lamina.image.archive_write import FULL_NAME, REF_NAME, blob_path
from lamina.image.names import set_names
from lamina.image.resolve import open_preferred
from lamina.layer.compress import decompressed
from lamina.layer.tarread import read_tar
from lamina.spec import mediatype
from lamina.spec.config import ImageConfig
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import DiffID, Digest
from lamina.spec.manifest import MAX_INDEX_DEPTH, Index, Manifest, children
from lamina.spec.reference import Reference
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from lamina.layer.tarread import EntryReader
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

_READ = 1 << 20
_MAX_IMAGES = 10_000
_HEX_NAME = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?", re.ASCII)


class Loaded(Record):
    """An image that was loaded: its names (none: only its id), its manifest or index."""

    target: Descriptor
    names: tuple[str, ...]
    config: Digest | None


class _Blob(Record):
    """A blob to copy: from this member, decompressed if asked, as this descriptor."""

    member: str
    descriptor: Descriptor
    decompress: bool = False


class _Claims:
    """What the archive claims to hold, checked as it is added."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self.blobs: dict[Digest, _Blob] = {}
        self.documents: dict[Digest, tuple[Descriptor, bytes]] = {}
        self.layers: dict[DiffID, tuple[int, Descriptor]] = {}
        self.images: list[Loaded] = []


def load_archive(
    store: Store,
    stream: IO[bytes],
    *,
    platform: Platform,
    cancel: CancelToken,
    exact: bool = False,
) -> list[Loaded]:
    """Add every image of the archive to the store, name them, and return them in order.

    `stream` must be seekable. Of an index of which the archive holds only some images, the one
    for `platform` is named; with `exact` of any index only that one is loaded, and it is an error
    if there is none. Of a docker-archive, whose manifests are made by whoever saves, an image that
    its names mean already stays as it is in the store. The caller holds a lease.

    Raises:
        LaminaError: INVALID for what is no image archive or an inconsistent one, INTEGRITY for
            bytes that do not match their digest; the store is then unchanged.
    """
    contents = scan(stream, cancel=cancel)
    claims = _Claims(contents)
    if contents.get("index.json") is not None:
        _claim_layout(claims, platform, exact=exact)
    elif contents.get("manifest.json") is not None:
        _claim_docker(claims)
    elif contents.get("repositories") is not None:
        raise InvalidArchive(
            "the archive is in the format that Docker wrote before version 1.10",
            hint="load it with a Docker of that time and save it again",
        )
    else:
        raise InvalidArchive(
            "not an archive of images: it has neither manifest.json nor index.json",
            hint="a root filesystem is read by 'lamina import'",
        )
    if contents.get("manifest.json") is not None:
        kept = [_as_stored(store, image, platform) for image in claims.images]
        claims.images = [stored or image for stored, image in zip(kept, claims.images, strict=True)]
        if all(kept):
            return claims.images
    stream.seek(0)
    _copy_blobs(store, stream, claims, cancel)
    return _publish(store, claims)


def _as_stored(store: Store, image: Loaded, platform: Platform) -> Loaded | None:
    """The image as the store has it, whole and under all its names (without one: under any)."""
    names = store.metadata.list_names()
    targets = {named.target.digest: named.target for named in names if named.name in image.names}
    if not image.names:
        targets = {named.target.digest: named.target for named in names}
    elif len(targets) != 1 or not set(image.names) <= {named.name for named in names}:
        return None
    for target in targets.values():
        try:
            stored = open_preferred(store, target, platform)
        except LaminaError:
            continue  # damaged: what is loaded takes its place
        if stored.id == image.config and stored.is_complete():
            return replace(image, target=target)
    return None


def _publish(store: Store, claims: _Claims) -> list[Loaded]:
    for diff_id, (size, blob) in claims.layers.items():
        store.metadata.put_layer(diff_id, size, blob)
    for descriptor, raw in claims.documents.values():
        _add(store, descriptor, raw)
    for image in claims.images:
        set_names(store, image.names, image.target)
    return claims.images


def _add(store: Store, descriptor: Descriptor, raw: bytes) -> None:
    if store.content.exists(descriptor.digest):
        return
    with store.content.ingest(f"load {descriptor.digest}", expected=descriptor) as ingest:
        ingest.write(raw[ingest.offset :])
        ingest.commit(digest=descriptor.digest, size=descriptor.size)


# --- OCI image layout ------------------------------------------------------------------------


def _claim_layout(claims: _Claims, platform: Platform, *, exact: bool) -> None:
    index = Index.parse(claims.contents.document("index.json"))
    tags = _repo_tags(claims.contents)
    targets: dict[Digest, tuple[Descriptor, list[str]]] = {}
    for entry in index.manifests:
        target = _complete(claims, replace(entry, annotations=()), platform, exact=exact)
        _, names = targets.setdefault(target.digest, (target, []))
        names += [name for name in _layout_names(entry) if name not in names]
    if not targets:
        raise InvalidArchive("the archive holds no images: its index.json is empty")
    for target, names in targets.values():
        config = _config_of(claims, target)
        names += [name for name in tags.get(config, ()) if name not in names]
        claims.images.append(Loaded(target, tuple(names), config))


def _layout_names(entry: Descriptor) -> list[str]:
    """Containerd's full name, else the ref name (what podman, buildah and skopeo write there)."""
    text = entry.annotation(FULL_NAME) or entry.annotation(REF_NAME)
    return [_name(text)] if text else []


def _name(text: str) -> str:
    """A name from an archive, validated and in full."""
    reference = Reference.parse(text).with_default_tag()
    if reference.digest is not None:
        # only names with a tag are kept; the digest is the image's own anyway
        reference = replace(reference, digest=None).with_default_tag()
    return str(reference)


def _complete(
    claims: _Claims, target: Descriptor, platform: Platform, *, exact: bool
) -> Descriptor:
    """`target` with all it reaches claimed; of an incomplete index the image for `platform`, with
    `exact` of any index.
    """
    depth = 0
    while target.media_type in mediatype.INDEXES:
        index = Index.parse(_document(claims, target), media_type=target.media_type)
        present = [entry for entry in index.manifests if _member_of(claims, entry) is not None]
        if len(present) == len(index.manifests) and not exact:
            _claim_graph(claims, target)
            return target
        if not present:
            raise InvalidArchive(f"the archive holds none of the images of index {target.digest}")
        chosen = Index.make(present).select(platform)
        if chosen is None and exact:
            raise LaminaError(
                f"index {target.digest} in the archive has no image for {platform}",
                kind=Kind.NOT_FOUND,
            )
        target = replace(chosen or present[0], annotations=(), platform=None)
        depth += 1
        _check_depth(target, depth)
    _check_image(claims, target)
    _claim_graph(claims, target)
    return target


def _check_depth(target: Descriptor, depth: int) -> None:
    if depth > MAX_INDEX_DEPTH:
        raise InvalidArchive(
            f"{target.digest}: indexes nested deeper than {MAX_INDEX_DEPTH} levels"
        )


def _check_image(claims: _Claims, target: Descriptor) -> None:
    """Raise InvalidArchive unless `target` is an image's manifest (and not another artifact's)."""
    if target.media_type in mediatype.MANIFESTS:
        manifest = Manifest.parse(_document(claims, target), media_type=target.media_type)
        if manifest.config.media_type in mediatype.CONFIGS:
            return
    raise InvalidArchive(f"{target.digest} in the archive is not an image ({target.media_type!r})")


def _claim_graph(claims: _Claims, root: Descriptor) -> None:
    """Claim every blob that can be reached from `root`; a missing one is an error."""
    todo = [(root, 0)]
    while todo:
        descriptor, depth = todo.pop()
        _check_depth(descriptor, depth)
        if descriptor.digest in claims.documents or descriptor.digest in claims.blobs:
            continue
        if descriptor.media_type in mediatype.MANIFESTS | mediatype.INDEXES:
            raw = _document(claims, descriptor)
            claims.documents[descriptor.digest] = (replace(descriptor, platform=None), raw)
            deeper = depth + (descriptor.media_type in mediatype.INDEXES)
            todo += [(child, deeper) for child in children(descriptor.media_type, raw)]
            if descriptor.media_type in mediatype.MANIFESTS:
                _claim_layers(claims, Manifest.parse(raw, media_type=descriptor.media_type))
        else:
            _claim_blob(claims, descriptor)


def _member_of(claims: _Claims, descriptor: Descriptor) -> Member | None:
    return claims.contents.get(blob_path(descriptor.digest))


def _claim_blob(claims: _Claims, descriptor: Descriptor) -> Member:
    member = _checked_member(claims, descriptor)
    if descriptor.media_type in mediatype.CONFIGS:
        json_of(member, f"config {descriptor.digest}")
    claims.blobs[descriptor.digest] = _Blob(member.name, descriptor)
    return member


def _document(claims: _Claims, descriptor: Descriptor) -> bytes:
    return json_of(_checked_member(claims, descriptor), f"document {descriptor.digest}")


def _checked_member(claims: _Claims, descriptor: Descriptor) -> Member:
    """The member that is this blob, its size and digest verified."""
    member = _member_of(claims, descriptor)
    if member is None:
        raise InvalidArchive(
            f"the archive has no blob {descriptor.digest}", hint="the archive is incomplete"
        )
    if member.size != descriptor.size:
        raise LaminaError(
            f"blob {descriptor.digest} has {member.size} bytes in the archive, "
            f"{descriptor.size} expected",
            kind=Kind.INTEGRITY,
        )
    # other algorithms are verified when the blob is written
    if descriptor.digest.algorithm == "sha256" and member.digest != descriptor.digest:
        raise LaminaError(
            f"blob {descriptor.digest} is damaged in the archive: its bytes are {member.digest}",
            kind=Kind.INTEGRITY,
        )
    return member


def _claim_layers(claims: _Claims, manifest: Manifest) -> None:
    """Check the layers against the config's diffIDs (an artifact's blobs have none)."""
    if not all(mediatype.is_layer(layer.media_type) for layer in manifest.layers):
        return
    if manifest.config.media_type not in mediatype.CONFIGS:
        return
    config = ImageConfig.parse(_document(claims, manifest.config))
    if len(config.diff_ids) != len(manifest.layers):
        raise InvalidArchive(
            f"image {manifest.config.digest.short()}: {len(manifest.layers)} layers in the "
            f"manifest, {len(config.diff_ids)} in the config"
        )
    for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
        member = _checked_member(claims, layer)
        _check_diff_id(member, diff_id)
        stored = mediatype.OCI_LAYER_OF[mediatype.LAYER_COMPRESSION[layer.media_type]]
        blob = Descriptor(stored, layer.digest, layer.size)
        claims.layers[diff_id] = (member.diff_size, blob)


def _check_diff_id(member: Member, diff_id: DiffID) -> None:
    if diff_id.algorithm == "sha256" and member.diff_id != diff_id:
        raise LaminaError(
            f"layer {member.name!r} of the archive is damaged: diffID {diff_id} expected, "
            f"{member.diff_id} found",
            kind=Kind.INTEGRITY,
        )


def _config_of(claims: _Claims, target: Descriptor) -> Digest | None:
    if target.media_type in mediatype.INDEXES:
        return None
    _, raw = claims.documents[target.digest]
    return Manifest.parse(raw, media_type=target.media_type).config.digest


# --- docker-archive --------------------------------------------------------------------------


class _Entry(Record):
    """An element of manifest.json."""

    config: str
    tags: tuple[str, ...]
    layers: tuple[str, ...]


def _docker_entries(contents: Contents) -> list[_Entry]:
    try:
        document = json.loads(contents.document("manifest.json").decode())
    except (ValueError, RecursionError) as error:
        raise InvalidArchive(f"invalid manifest.json in the archive: {error}") from error
    if not isinstance(document, list) or not document or len(document) > _MAX_IMAGES:
        raise InvalidArchive("invalid manifest.json in the archive: not a list of images")
    return [_docker_entry(entry) for entry in document]


def _docker_entry(entry: object) -> _Entry:
    if not isinstance(entry, dict) or not isinstance(entry.get("Config"), str):
        raise InvalidArchive("invalid manifest.json in the archive: an image has no Config")
    lists = [entry.get(field) or [] for field in ("RepoTags", "Layers")]
    for value in lists:
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise InvalidArchive("invalid manifest.json in the archive: RepoTags or Layers")
    return _Entry(entry["Config"], tuple(lists[0]), tuple(lists[1]))


def _repo_tags(contents: Contents) -> dict[Digest | None, list[str]]:
    """Names by config digest from manifest.json, for layouts that have one too."""
    if contents.get("manifest.json") is None:
        return {}
    names: dict[Digest | None, list[str]] = {}
    for entry in _docker_entries(contents):
        config = contents.get(entry.config)
        if config is not None:
            names.setdefault(config.digest, []).extend(_name(tag) for tag in entry.tags)
    return names


def _claim_docker(claims: _Claims) -> None:
    for entry in _docker_entries(claims.contents):
        config_raw = claims.contents.document(entry.config)
        config_member = claims.contents.need(entry.config)
        _check_config_name(entry.config, config_member)
        diff_ids = ImageConfig.parse(config_raw).diff_ids
        if len(diff_ids) != len(entry.layers):
            raise InvalidArchive(
                f"image {entry.config!r}: {len(entry.layers)} layers in manifest.json, "
                f"{len(diff_ids)} in its config"
            )
        layers = [
            _claim_docker_layer(claims, name, diff_id)
            for name, diff_id in zip(entry.layers, diff_ids, strict=True)
        ]
        config = Descriptor(mediatype.OCI_CONFIG, config_member.digest, config_member.size)
        claims.blobs[config.digest] = _Blob(config_member.name, config)
        manifest = Manifest.make(config, layers)
        target = manifest.descriptor()
        claims.documents[target.digest] = (target, manifest.raw)
        names = tuple(dict.fromkeys(_name(tag) for tag in entry.tags))
        claims.images.append(Loaded(target, names, config.digest))


def _check_config_name(name: str, member: Member) -> None:
    match = _HEX_NAME.fullmatch(clean(name))
    if match is not None and match[1] != member.digest.hex:
        raise LaminaError(
            f"config {name!r} of the archive is damaged: its bytes are {member.digest}",
            kind=Kind.INTEGRITY,
        )


def _claim_docker_layer(claims: _Claims, name: str, diff_id: DiffID) -> Descriptor:
    member = claims.contents.need(name)
    _check_diff_id(member, diff_id)
    if member.compression in mediatype.OCI_LAYER_OF:
        media_type = mediatype.OCI_LAYER_OF[member.compression]
        descriptor = Descriptor(media_type, member.digest, member.size)
        blob = _Blob(member.name, descriptor)
    else:
        # Docker reads xz and bzip2 layers, but no media type names them: kept uncompressed
        descriptor = Descriptor(mediatype.OCI_LAYER, diff_id, member.diff_size)
        blob = _Blob(member.name, descriptor, decompress=True)
    claims.blobs[descriptor.digest] = blob
    claims.layers[diff_id] = (member.diff_size, descriptor)
    return descriptor


# --- second pass -----------------------------------------------------------------------------


def _copy_blobs(store: Store, stream: IO[bytes], claims: _Claims, cancel: CancelToken) -> None:
    wanted: dict[str, list[_Blob]] = {}
    for blob in claims.blobs.values():
        if not store.content.exists(blob.descriptor.digest):
            wanted.setdefault(blob.member, []).append(blob)
    if not wanted:
        return
    if any(len(blobs) > 1 for blobs in wanted.values()):
        raise InvalidArchive("the archive uses one member as two different blobs")
    for entry, reader in read_tar(decompressed(stream)):
        blobs = wanted.pop(entry.path.decode("utf-8", "surrogateescape"), [])
        if blobs:
            _copy(store, blobs[0], reader, cancel)
        if not wanted:
            return
    raise InvalidArchive("the archive changed while it was read")


def _copy(store: Store, blob: _Blob, reader: EntryReader, cancel: CancelToken) -> None:
    digest = blob.descriptor.digest
    with store.content.ingest(f"load {digest}", expected=blob.descriptor) as ingest:
        skip = ingest.offset
        for piece in _pieces(reader, decompress=blob.decompress):
            cancel.check()
            if skip >= len(piece):
                skip -= len(piece)
            else:
                ingest.write(piece[skip:])
                skip = 0
        ingest.commit(digest=digest, size=blob.descriptor.size)


def _pieces(reader: EntryReader, *, decompress: bool) -> Iterator[bytes]:
    # the reader of an entry is all of a file that decompression needs
    stream = decompressed(reader) if decompress else reader  # type: ignore[arg-type]
    while piece := stream.read(_READ):
        yield piece
