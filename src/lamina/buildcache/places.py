# SPDX-License-Identifier: Apache-2.0
"""Where cache lies: registries, directories (OCI image layouts), images; opened and read.

A cache is an OCI manifest whose config is the document of `codec` and whose layers are the layers
themselves; or an index that lists the same; or an image that has records in its config. What any
other document holds is said by name.
"""

from __future__ import annotations

import os

from lamina.buildcache import codec
from lamina.errors import Kind, LaminaError
from lamina.registry.client import manifest_type
from lamina.registry.layout import LayoutEnd
from lamina.registry.storeend import StoreEnd
from lamina.spec import mediatype
from lamina.spec.config import ImageConfig
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import Digest
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.manifest import Index, Manifest
from lamina.spec.reference import Reference
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.buildcache.codec import CacheDocument
    from lamina.buildcache.options import CacheFrom
    from lamina.registry.client import Registries
    from lamina.registry.ports import Source
    from lamina.spec.digest import DiffID
    from lamina.store.ports import Store

_BUILDKIT_CONFIG = "application/vnd.buildkit.cacheconfig.v0"
_BUILDKIT_INLINE = "moby.buildkit.cache.v0"
_MAX_IMAGES = 16  # of an index that are looked into


class NoCache(LaminaError):
    """What was found holds no cache that lamina can use."""

    kind = Kind.UNSUPPORTED


class ReadCache(Record):
    """A document and where the blob of each of its layers is described."""

    document: CacheDocument
    blobs: tuple[tuple[DiffID, Descriptor], ...]


def open_place(
    place: CacheFrom, store: Store, registries: Callable[[], Registries]
) -> tuple[Source, Descriptor]:
    """The source, and the root document of the cache in it.

    A reference that its registry cannot give is looked for among the store's own images.

    Raises:
        LaminaError: NOT_FOUND, DENIED, UNAVAILABLE, INVALID.
    """
    if place.type == "local":
        layout = LayoutEnd(place.src)
        return layout, _by_digest(layout.path, place.digest) or layout.find(place.tag)
    reference = Reference.parse(place.ref).with_default_tag()
    try:
        repository = registries().repository(reference)
        found = repository.resolve(str(reference.digest or reference.tag))
    except LaminaError:
        named = store.metadata.get_name(str(reference))
        if named is None:
            raise
        return StoreEnd(store), named.target
    return repository, found.descriptor


def _by_digest(path: str, text: str) -> Descriptor | None:
    """The document of that digest in the layout, whatever `index.json` says."""
    if not text:
        return None
    digest = Digest.parse(text)
    try:
        with open(os.path.join(path, "blobs", digest.algorithm, digest.hex), "rb") as file:
            raw = file.read(MAX_DOCUMENT + 1)
    except FileNotFoundError as error:
        raise LaminaError(f"{digest} is not in {path}", kind=Kind.NOT_FOUND) from error
    return Descriptor(manifest_type(raw, "", name=path), digest, len(raw))


def read_cache(source: Source, root: Descriptor) -> tuple[ReadCache, ...]:
    """The caches that `root` holds: one, or one an image of an index.

    Raises:
        NoCache: it holds something else, or BuildKit's cache.
        LaminaError: INTEGRITY, INVALID, and what the source raised.
    """
    raw = source.document(root)
    if root.media_type not in mediatype.INDEXES:
        manifest = Manifest.parse(raw, media_type=root.media_type)
        return (_of_manifest(source, manifest),)
    entries = Index.parse(raw, media_type=root.media_type).manifests
    for entry in entries:
        if entry.media_type == codec.CONFIG_TYPE:
            return (_of_config(source, entry, entries),)
        _refuse_buildkit(entry)
    images = [entry for entry in entries if entry.media_type in mediatype.MANIFESTS][:_MAX_IMAGES]
    found: list[ReadCache] = []
    for position, entry in enumerate(images):
        manifest = Manifest.parse(source.document(entry), media_type=entry.media_type)
        try:
            found.append(_of_manifest(source, manifest))
        except NoCache:
            if position + 1 == len(images) and not found:
                raise
    if not found:
        raise NoCache("it holds neither a cache nor an image")
    return tuple(found)


def _refuse_buildkit(config: Descriptor) -> None:
    if config.media_type == _BUILDKIT_CONFIG:
        raise NoCache(
            "it is BuildKit's cache, whose keys are digests of BuildKit's own definitions of steps:"
            " lamina has no such keys, so nothing in it could match"
        )


def _of_manifest(source: Source, manifest: Manifest) -> ReadCache:
    _refuse_buildkit(manifest.config)
    if manifest.config.media_type == codec.CONFIG_TYPE:
        return _of_config(source, manifest.config, manifest.layers)
    if manifest.config.media_type in mediatype.CONFIGS:
        return _of_image(source, manifest)
    raise NoCache(f"it is an artifact ({manifest.config.media_type}), not a cache")


def _of_config(source: Source, config: Descriptor, blobs: tuple[Descriptor, ...]) -> ReadCache:
    document = codec.decode(read_blob(source, config, limit=codec.MAX_SIZE))
    listed = {blob.digest: blob for blob in blobs if mediatype.is_layer(blob.media_type)}
    pairs = []
    for diff_id, digest in document.layers:
        if digest not in listed:
            raise codec.InvalidCache(f"invalid cache: layer {digest} is not in its manifest")
        pairs.append((diff_id, listed[digest]))
    return ReadCache(document, tuple(pairs))


def _of_image(source: Source, manifest: Manifest) -> ReadCache:
    config = ImageConfig.parse(read_blob(source, manifest.config, limit=MAX_DOCUMENT))
    fields = dict(config.unknown)
    text = fields.get(codec.INLINE_FIELD)
    if text is None:
        if _BUILDKIT_INLINE in fields:
            _refuse_buildkit(Descriptor(_BUILDKIT_CONFIG, manifest.config.digest, 0))
        raise NoCache(
            "it is an image without cache records", hint="build it with --cache-to type=inline"
        )
    if len(config.diff_ids) != len(manifest.layers):
        raise codec.InvalidCache("invalid cache: the image has other layers than its config says")
    document = codec.decode(text.encode(), stack=config.diff_ids)
    pairs = zip(config.diff_ids, manifest.layers, strict=True)
    return ReadCache(
        document, tuple(pair for pair in pairs if mediatype.is_layer(pair[1].media_type))
    )


def read_blob(source: Source, descriptor: Descriptor, *, limit: int) -> bytes:
    """All bytes of a small blob, verified. Raises LaminaError: INVALID if too large, INTEGRITY."""
    if descriptor.size > limit:
        raise LaminaError(
            f"blob {descriptor.digest} is larger than {limit} bytes", kind=Kind.INVALID
        )
    parts: list[bytes] = []
    left = descriptor.size + 1
    with source.open(descriptor) as stream:
        while left > 0 and (data := stream.read(left)):
            parts.append(data)
            left -= len(data)
    raw = b"".join(parts)
    found = Digest.of(raw, algorithm=descriptor.digest.algorithm)
    if len(raw) != descriptor.size or found != descriptor.digest:
        raise LaminaError(f"blob {descriptor.digest} is damaged", kind=Kind.INTEGRITY)
    return raw
