# SPDX-License-Identifier: Apache-2.0
"""Layers unpacked while they arrive (docs/adr/0095-unpack-while-pulling.md).

A download goes into its ingest as ever. Whoever unpacks reads the same file behind it, and waits
where it ends: the page cache is the buffer, so neither side holds the other up and memory is flat.
States of a blob; only `whole` blobs may lead to anything that others see:

    unknown --> begun (readable as far as it came) --> whole (verified, in the store)
                  ^  |                                    ^
                  +--+ thrown away and begun again        | was there before: from unknown
"""

from __future__ import annotations

import io
import os
import threading

from lamina.errors import Kind, LaminaError
from lamina.image.unpack import LayerCorrupt, unpack_blob
from lamina.registry.graph import FOREIGN
from lamina.registry.storeend import StoreEnd
from lamina.spec import mediatype
from lamina.spec.config import ImageConfig
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.identity import MAX_LAYERS, chain_ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import IO

    from lamina.registry.ports import Report, Source
    from lamina.spec.descriptor import Descriptor
    from lamina.spec.digest import ChainID, DiffID, Digest
    from lamina.spec.manifest import Manifest
    from lamina.store.ports import Ingest, Store
    from lamina.tasks import CancelToken, Work

_DAMAGE = frozenset({Kind.INTEGRITY, Kind.INVALID})


class Replaced(LaminaError):
    """What had arrived was damaged and is thrown away; the blob is fetched again."""

    kind = Kind.INTEGRITY


class _Begun:
    """One attempt at a blob: the file it is written to, and how far."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.size = 0
        self.is_replaced = False


class Arrivals:
    """How far each blob is. Any thread may call it; waiting ends with Cancelled. Close it last."""

    def __init__(self, store: Store, cancel: CancelToken) -> None:
        self._store = store
        self._cancel = cancel
        self._changed = threading.Condition()
        self._begun: dict[Digest, _Begun] = {}
        self._whole: set[Digest] = set()
        cancel.on_cancel(self._wake)

    def begin(self, digest: Digest, file: IO[bytes]) -> None:
        """The blob is written to `file`, whose size `grow` tells; an attempt before was in vain."""
        with self._changed:
            before = self._begun.get(digest)
            if before is not None:
                before.is_replaced = True
                before.file.close()
            self._begun[digest] = _Begun(file)
            self._changed.notify_all()

    def grow(self, digest: Digest, size: int) -> None:
        """The first `size` bytes are written."""
        with self._changed:
            self._begun[digest].size = size
            self._changed.notify_all()

    def complete(self, digest: Digest) -> None:
        """The blob is verified and in the store."""
        with self._changed:
            self._whole.add(digest)
            if digest in self._begun:
                self._begun[digest].file.close()
            self._changed.notify_all()

    def wait(self, digest: Digest) -> None:
        """Return once the blob is whole."""
        with self._changed:
            while digest not in self._whole:
                self._pause()

    def open(self, descriptor: Descriptor) -> IO[bytes]:
        """The blob from its start, as it comes; the caller closes it."""
        digest = descriptor.digest
        with self._changed:
            while digest not in self._whole and digest not in self._begun:
                self._pause()
            if digest not in self._whole:
                begun = self._begun[digest]
                return _Follower(self, digest, begun, os.dup(begun.file.fileno()))  # type: ignore[return-value]  # io's classes are IO in all but name
        return self._store.content.open(digest)

    def available(self, digest: Digest, begun: _Begun, offset: int) -> int:
        """How many bytes from `offset` on can be read, at least one; 0 at the end of the blob.

        Raises:
            Replaced: this attempt was thrown away.
        """
        with self._changed:
            while begun.size <= offset and digest not in self._whole and not begun.is_replaced:
                self._pause()
            if begun.is_replaced:
                raise Replaced(f"blob {digest} was damaged on its way")
            return begun.size - offset

    def close(self) -> None:
        """Close the files; nothing can be opened any more. Who reads one has it for himself."""
        self._cancel.forget(self._wake)
        for begun in self._begun.values():
            begun.file.close()

    def _pause(self) -> None:
        self._cancel.check()
        self._changed.wait()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


class _Follower(io.RawIOBase):
    """Reads a file (`fd`, its own) that another thread writes; waits at its end until the blob is
    whole.
    """

    def __init__(self, arrivals: Arrivals, digest: Digest, begun: _Begun, fd: int) -> None:
        self._fd = fd
        self._arrivals = arrivals
        self._digest = digest
        self._begun = begun
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        left = self._arrivals.available(self._digest, self._begun, self._at)
        count = left if size < 0 else min(size, left)
        data = os.pread(self._fd, count, self._at) if count else b""
        self._at += len(data)
        return data

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


class ArrivingEnd(StoreEnd):
    """A store as Sink that tells `arrivals` what comes; layers in `unpacked` are not looked into:
    who unpacks them does that.
    """

    def __init__(self, store: Store, arrivals: Arrivals, unpacked: Collection[Digest]) -> None:
        super().__init__(store)
        self._arrivals = arrivals
        self._unpacked = unpacked

    def exists(self, descriptor: Descriptor) -> bool:
        found = super().exists(descriptor)
        if found:
            self._arrivals.complete(descriptor.digest)
        return found

    def put(
        self, descriptor: Descriptor, source: Source, *, report: Report, cancel: CancelToken
    ) -> None:
        if descriptor.digest in self._unpacked:
            self.fetch(descriptor, source, report=report, cancel=cancel)
        else:
            super().put(descriptor, source, report=report, cancel=cancel)
        self._arrivals.complete(descriptor.digest)

    def _watch(self, ingest: Ingest, descriptor: Descriptor, report: Report) -> Report:
        digest = descriptor.digest
        if digest not in self._unpacked:
            return report
        self._arrivals.begin(digest, ingest.reader())

        def grown(size: int) -> None:
            self._arrivals.grow(digest, size)
            report(size)

        grown(ingest.offset)
        return grown


class ArrivingImage:
    """The layers of one image, unpacked from the bottom up as they arrive."""

    def __init__(
        self, end: ArrivingEnd, arrivals: Arrivals, manifest: Manifest, *, store: Store, work: Work
    ) -> None:
        self._end = end
        self._arrivals = arrivals
        self._manifest = manifest
        self._store = store
        self._work = work

    def unpack(self) -> None:
        """Until every layer is a snapshot; nothing for what is not an image that can be unpacked.

        Raises:
            LaminaError: INTEGRITY (a layer is not the config's), INVALID, EXHAUSTED...
            Cancelled: the download failed.
        """
        config = self._manifest.config
        self._arrivals.wait(config.digest)
        raw = self._store.content.read(config.digest, limit=MAX_DOCUMENT)
        diff_ids = ImageConfig.parse(raw).diff_ids
        layers = self._manifest.layers
        if len(diff_ids) != len(layers):
            return  # the caller refuses such an image, with what it knows of it
        parent: ChainID | None = None
        for blob, diff_id, chain in zip(layers, diff_ids, chain_ids(diff_ids), strict=True):
            self._work.cancel.check()
            self._layer(blob, diff_id, chain, parent)
            parent = chain

    def _layer(
        self, blob: Descriptor, diff_id: DiffID, chain: ChainID, parent: ChainID | None
    ) -> None:
        try:
            self._unpack(blob, diff_id, chain, parent)
        except LaminaError as error:
            if error.kind not in _DAMAGE:
                raise
            # Bytes not verified yet may be to blame: a resumed half that was damaged, a replaced
            # one. If the blob turns out whole, it says itself what is wrong.
            self._arrivals.wait(blob.digest)
            self._unpack_whole(blob, diff_id, chain, parent)
        self._arrivals.wait(blob.digest)
        known = self._store.metadata.get_layer(diff_id)
        if known is None or blob.digest not in {one.digest for one in known.blobs}:
            self._end.record_layer(blob, self._work.cancel)  # its snapshot was there before

    def _unpack_whole(
        self, blob: Descriptor, diff_id: DiffID, chain: ChainID, parent: ChainID | None
    ) -> None:
        try:
            self._unpack(blob, diff_id, chain, parent)
        except LayerCorrupt as error:
            raise LaminaError(
                f"layer {blob.digest.short()} is not the {diff_id} of the config",
                kind=Kind.INTEGRITY,
            ) from error

    def _unpack(
        self, blob: Descriptor, diff_id: DiffID, chain: ChainID, parent: ChainID | None
    ) -> None:
        unpack_blob(
            self._store,
            blob,
            diff_id,
            chain=chain,
            parent=parent,
            open=lambda: self._arrivals.open(blob),
            verify=lambda: self._arrivals.wait(blob.digest),
            work=self._work,
        )


def can_unpack(manifest: Manifest) -> bool:
    """Whether it is an image that Linux can mount, all of whose layers registries have."""
    return (
        manifest.config.media_type in mediatype.CONFIGS
        and len(manifest.layers) <= MAX_LAYERS
        and all(
            mediatype.is_layer(layer.media_type) and layer.media_type not in FOREIGN
            for layer in manifest.layers
        )
    )
