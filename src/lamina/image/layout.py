# SPDX-License-Identifier: Apache-2.0
"""An image of an OCI image layout directory, copied into the store without a name.

Every blob is verified against its digest and size, every layer against its diffID.
"""

from __future__ import annotations

import hashlib
import os
import stat

from lamina.errors import Kind, LaminaError
from lamina.image.archive_write import FULL_NAME, REF_NAME, blob_path
from lamina.image.view import Image, open_uncompressed
from lamina.spec import mediatype
from lamina.spec.config import ImageConfig
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import Digest
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.manifest import MAX_INDEX_DEPTH, Index, Manifest
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from lamina.spec.digest import DiffID
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

_CHUNK = 1 << 20
_DEFAULT_TAG = "latest"


class InvalidLayout(LaminaError):
    kind = Kind.INVALID


def load_layout(store: Store, text: str, *, platform: Platform, cancel: CancelToken) -> Image:
    """The image of `DIR`, `DIR:TAG` or `DIR@DIGEST` for the platform; the caller holds a lease.

    Without a tag or digest it is `latest`, or the only image there is.

    Raises:
        LaminaError: NOT_FOUND for no such directory or image, INVALID for what is no layout,
            INTEGRITY for damaged blobs.
    """
    directory, tag, digest = _split(text)
    layout = _Layout(store, directory, cancel)
    target = layout.find(tag, digest)
    raw = layout.document(target)
    for _ in range(MAX_INDEX_DEPTH):
        if target.media_type not in mediatype.INDEXES:
            break
        index = Index.parse(raw, media_type=target.media_type)
        chosen = index.select(platform)
        if chosen is None:
            text = f"the image layout {directory} has no image for {platform}"
            raise LaminaError(text, kind=Kind.NOT_FOUND)
        target = replace(chosen, annotations=())
        raw = layout.document(target)
    else:
        text = f"the image layout {directory}: indexes nested deeper than {MAX_INDEX_DEPTH} levels"
        raise LaminaError(text, kind=Kind.INVALID)
    layout.copy(target, raw)
    return Image.open(store, target, platform=platform)


def _split(text: str) -> tuple[str, str, Digest | None]:
    path, at, digest = text.rpartition("@")
    if at and not os.path.isdir(text):
        return path, "", Digest.parse(digest)
    path, colon, tag = text.rpartition(":")
    if colon and "/" not in tag and not os.path.isdir(text):
        return path, tag, None
    return text, "", None


class _Layout:
    def __init__(self, store: Store, directory: str, cancel: CancelToken) -> None:
        self._store = store
        self._directory = directory
        self._cancel = cancel

    def find(self, tag: str, digest: Digest | None) -> Descriptor:
        """The entry of index.json. Raises NOT_FOUND."""
        with self._open("index.json") as file:
            raw = file.read(MAX_DOCUMENT + 1)
        entries = Index.parse(raw).manifests
        if digest is not None:
            found = [entry for entry in entries if entry.digest == digest]
        else:
            found = [entry for entry in entries if _is_named(entry, tag or _DEFAULT_TAG)]
            if not found and not tag and len(entries) == 1:
                found = list(entries)
        if not found:
            names = sorted(filter(None, (entry.annotation(REF_NAME) for entry in entries)))
            raise LaminaError(
                f"the image layout {self._directory} has no image {digest or tag or _DEFAULT_TAG}",
                kind=Kind.NOT_FOUND,
                hint=f"it has {', '.join(names)}" if names else "its images have no names",
            )
        return replace(found[0], annotations=())

    def document(self, descriptor: Descriptor) -> bytes:
        """The bytes of an index, manifest or config, verified."""
        with self._open(blob_path(descriptor.digest)) as file:
            raw = file.read(MAX_DOCUMENT + 1)
        if len(raw) > MAX_DOCUMENT:
            raise InvalidLayout(f"{descriptor.digest} of the image layout is too large")
        algorithm = descriptor.digest.algorithm
        if Digest.of(raw, algorithm=algorithm) != descriptor.digest:
            raise LaminaError(
                f"blob {descriptor.digest} of the image layout is damaged", kind=Kind.INTEGRITY
            )
        return raw

    def copy(self, target: Descriptor, raw: bytes) -> None:
        """Copy a manifest with all that it needs."""
        if target.media_type not in mediatype.MANIFESTS:
            raise InvalidLayout(f"{target.digest} of the image layout is not an image")
        manifest = Manifest.parse(raw, media_type=target.media_type)
        if manifest.config.media_type not in mediatype.CONFIGS:
            raise InvalidLayout(f"{target.digest} of the image layout is not an image")
        config = ImageConfig.parse(self.document(manifest.config))
        if len(config.diff_ids) != len(manifest.layers):
            raise InvalidLayout(
                f"image {target.digest}: {len(manifest.layers)} layers in the manifest, "
                f"{len(config.diff_ids)} in the config"
            )
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            self._copy_layer(layer, diff_id)
        self._copy_blob(manifest.config)
        self._copy_blob(target)

    def _copy_layer(self, layer: Descriptor, diff_id: DiffID) -> None:
        if layer.media_type not in mediatype.LAYER_COMPRESSION:
            raise InvalidLayout(f"layer {layer.digest}: unknown media type {layer.media_type!r}")
        known = self._store.metadata.get_layer(diff_id)
        if known is not None and any(
            blob.digest == layer.digest and self._store.content.exists(blob.digest)
            for blob in known.blobs
        ):
            return
        self._copy_blob(layer)
        size = self._check(layer, diff_id)
        stored = mediatype.OCI_LAYER_OF[mediatype.LAYER_COMPRESSION[layer.media_type]]
        blob = Descriptor(stored, layer.digest, layer.size)
        self._store.metadata.put_layer(diff_id, size, blob)

    def _check(self, layer: Descriptor, diff_id: DiffID) -> int:
        """The uncompressed size of a layer whose diffID is right."""
        sha = hashlib.new(diff_id.algorithm)
        size = 0
        with open_uncompressed(self._store, layer.digest) as stream:
            while chunk := stream.read(_CHUNK):
                self._cancel.check()
                sha.update(chunk)
                size += len(chunk)
        if sha.hexdigest() != diff_id.hex:
            raise LaminaError(
                f"layer {layer.digest} does not hold what the config says ({diff_id})",
                kind=Kind.INTEGRITY,
            )
        return size

    def _copy_blob(self, descriptor: Descriptor) -> None:
        if self._store.content.exists(descriptor.digest):
            return
        expected = replace(descriptor, platform=None, annotations=())
        with (
            self._store.content.ingest(f"layout {descriptor.digest}", expected=expected) as ingest,
            self._open(blob_path(descriptor.digest)) as file,
        ):
            file.seek(ingest.offset)
            while chunk := file.read(_CHUNK):
                self._cancel.check()
                ingest.write(chunk)
            ingest.commit(digest=descriptor.digest, size=descriptor.size)

    def _open(self, name: str) -> IO[bytes]:
        path = os.path.join(self._directory, name)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            hint = "" if os.path.isdir(self._directory) else "the directory does not exist"
            text = f"the image layout {self._directory} has no {name}"
            raise LaminaError(text, kind=Kind.NOT_FOUND, hint=hint) from error
        except OSError as error:
            text = f"cannot read {path}: {error.strerror}"
            raise LaminaError(text, kind=Kind.DENIED) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InvalidLayout(f"{path} is not a regular file")
        return open(fd, "rb")


def _is_named(entry: Descriptor, tag: str) -> bool:
    """Whether the entry's ref name is the tag, or a full name with it."""
    names = (entry.annotation(REF_NAME), entry.annotation(FULL_NAME))
    return any(name == tag or (name or "").endswith(f":{tag}") for name in names)
