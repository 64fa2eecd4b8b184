# SPDX-License-Identifier: Apache-2.0
"""An image in a store: its manifest, its config, its layers."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.spec import mediatype
from lamina.spec.config import ImageConfig
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.identity import chain_ids
from lamina.spec.manifest import MAX_INDEX_DEPTH, Index, Manifest
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from lamina.spec.descriptor import Descriptor
    from lamina.spec.digest import DiffID, Digest
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store


class PlatformNotFound(LaminaError):
    """The image exists, but not for the wanted platform."""

    kind = Kind.NOT_FOUND


class Layer:
    """One layer of an image: a view, nothing is read before it is asked for."""

    def __init__(self, store: Store, descriptor: Descriptor, diff_id: DiffID) -> None:
        self._store = store
        self._descriptor = descriptor
        self._diff_id = diff_id

    def descriptor(self) -> Descriptor:
        """The blob that holds it, as the manifest says."""
        return self._descriptor

    def diff_id(self) -> DiffID:
        """The digest of its uncompressed tar."""
        return self._diff_id

    @property
    def size(self) -> int:
        """Bytes of the uncompressed tar if known, else of the blob."""
        known = self._store.metadata.get_layer(self._diff_id)
        return known.size if known is not None else self._descriptor.size

    def compressed(self) -> IO[bytes]:
        """The blob as it is stored; the caller closes it. Raises kind NOT_FOUND."""
        return self._store.content.open(self._descriptor.digest)

    def uncompressed(self) -> IO[bytes]:
        """The tar, not verified; the caller closes it. Raises kind NOT_FOUND."""
        return open_uncompressed(self._store, self._descriptor.digest)


def open_uncompressed(store: Store, digest: Digest) -> IO[bytes]:
    """What the blob decompresses to, not verified; closing it closes the blob."""
    from lamina.layer.compress import decompressed

    file = store.content.open(digest)
    try:
        stream = decompressed(file)
    except BaseException:
        file.close()
        raise
    close = stream.close

    def close_both() -> None:
        close()
        file.close()

    stream.close = close_both  # type: ignore[method-assign]  # the reader leaves its source open
    return stream


class _Parts(Record):
    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig
    config_raw: bytes


class Image:
    """An image for one platform. `id` is the digest of its config, as Docker's."""

    def __init__(self, store: Store, parts: _Parts, target: Descriptor) -> None:
        self._store = store
        self._parts = parts
        self.target = target  # what the name pointed to: the manifest, or an index with it

    @staticmethod
    def open(store: Store, descriptor: Descriptor, *, platform: Platform | None = None) -> Image:
        """The image that `descriptor` (a manifest or an index) points to.

        With `platform`, the image for that host; without, of an index the first one present.

        Raises:
            PlatformNotFound: kind NOT_FOUND; nothing in it runs on `platform`.
            LaminaError: kind NOT_FOUND for a missing blob, INTEGRITY or INVALID for a bad one.
        """
        found = _select(store, descriptor, platform, 0)
        raw = store.content.read(found.digest, limit=MAX_DOCUMENT)
        manifest = Manifest.parse(raw, media_type=found.media_type)
        config_raw = store.content.read(manifest.config.digest, limit=MAX_DOCUMENT)
        config = ImageConfig.parse(config_raw)
        if len(manifest.layers) != len(config.diff_ids):
            raise LaminaError(
                f"image {found.digest}: {len(manifest.layers)} layers in the manifest, "
                f"{len(config.diff_ids)} in the config",
                kind=Kind.INVALID,
            )
        if platform is not None and platform.preference(config.platform) is None:
            raise PlatformNotFound(f"the image is for {config.platform}, not for {platform}")
        return Image(store, _Parts(found, manifest, config, config_raw), descriptor)

    def __repr__(self) -> str:
        names = "".join(f" {name}" for name in self.tags)
        return f"<Image {self.id.hex[:12]}{names} {self.config().platform}>"

    def _repr_html_(self) -> str:
        """The image in a notebook."""
        from lamina.image.notebook import fields
        from lamina.image.sizes import human_size

        config = self.config()
        defaults = config.config
        return fields(
            [
                ("Image", self.id),
                ("Names", ", ".join(self.tags)),
                ("Platform", config.platform),
                ("Created", config.created),
                ("Size", f"{human_size(self.size)} in {len(self.layers())} layers"),
                ("Entrypoint", " ".join(defaults.entrypoint or ())),
                ("Command", " ".join(defaults.cmd or ())),
                ("User", defaults.user),
                ("Ports", ", ".join(defaults.exposed_ports)),
                *((f"Label {name}", value) for name, value in defaults.labels),
            ]
        )

    @property
    def tags(self) -> tuple[str, ...]:
        """Its names in the store now, as people write them; sorted."""
        from lamina.image.ids import held_names
        from lamina.spec.reference import Reference

        return tuple(
            Reference.parse(held.named.name).familiar()
            for held in held_names(self._store)
            if not held.is_dangling and self.id in held.ids
        )

    @property
    def id(self) -> Digest:
        """The image id: the config's digest."""
        return self._parts.manifest.config.digest

    def descriptor(self) -> Descriptor:
        """The manifest's descriptor."""
        return self._parts.descriptor

    def manifest(self) -> Manifest:
        """The manifest, as stored."""
        return self._parts.manifest

    def config(self) -> ImageConfig:
        """The config, parsed."""
        return self._parts.config

    def config_raw(self) -> bytes:
        """The config's bytes: the image id is their digest."""
        return self._parts.config_raw

    def layers(self) -> tuple[Layer, ...]:
        """The layers, lowest first."""
        return tuple(
            Layer(self._store, descriptor, diff_id)
            for descriptor, diff_id in zip(
                self.manifest().layers, self.config().diff_ids, strict=True
            )
        )

    def is_complete(self) -> bool:
        """Whether every layer is here, packed or unpacked."""
        chains = chain_ids(self.config().diff_ids)
        if chains and self._store.snapshots.exists(chains[-1]):
            return True
        return all(
            self._store.content.exists(layer.digest) or self._store.snapshots.exists(chain)
            for layer, chain in zip(self.manifest().layers, chains, strict=True)
        )

    @property
    def size(self) -> int:
        """Bytes of all layers, uncompressed where that is known."""
        return sum(layer.size for layer in self.layers())


def _select(
    store: Store, descriptor: Descriptor, platform: Platform | None, depth: int
) -> Descriptor:
    """The manifest for `platform` (None: the first that is here) behind `descriptor`."""
    if descriptor.media_type not in mediatype.INDEXES:
        return descriptor
    if depth > MAX_INDEX_DEPTH:
        raise LaminaError(f"index {descriptor.digest}: nested too deeply", kind=Kind.INVALID)
    raw = store.content.read(descriptor.digest, limit=MAX_DOCUMENT)
    index = Index.parse(raw, media_type=descriptor.media_type)
    for entry in _candidates(index, platform):
        if store.content.exists(entry.digest):
            return _select(store, entry, platform, depth + 1)
    wanted = f" for {platform}" if platform is not None else ""
    raise PlatformNotFound(f"index {descriptor.digest} has no image{wanted} in this store")


def _candidates(index: Index, platform: Platform | None) -> list[Descriptor]:
    """Entries to try, best first. Attestations have no platform that lamina knows."""
    entries = [
        entry
        for entry in index.manifests
        if entry.platform is not None or len(index.manifests) == 1
    ]
    if platform is None:
        return entries
    ranked = [
        (rank, position)
        for position, entry in enumerate(entries)
        if (rank := platform.preference(entry.platform or platform)) is not None
    ]
    return [entries[position] for _, position in sorted(ranked)]
