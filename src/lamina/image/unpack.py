# SPDX-License-Identifier: Apache-2.0
"""Layers as snapshots and as blobs: whichever is wanted is made from the other.

A layer is known by its diffID. Its bytes may be in the store as blobs, in several compressions, and
as an unpacked snapshot. `ensure_snapshot` unpacks what is missing, `ensure_blob` compresses what is
missing; both check the diffID of every byte that they make something of.
"""

from __future__ import annotations

import os

from lamina.errors import Kind, LaminaError
from lamina.events import Phase, Progress
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import DiffID, Digest
from lamina.spec.identity import chain_id, chain_ids
from lamina.spec.mediatype import LAYER_COMPRESSION, OCI_LAYER_OF
from lamina.store.working import sweep_working, working_key
from lamina.system.mounts import check_layers
from lamina.system.userns import enter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

    from lamina.events import Emitter
    from lamina.layer.apply import AppliedLayer
    from lamina.spec.digest import ChainID
    from lamina.store.ports import Ingest, Store
    from lamina.system.overlay import OverlayMount
    from lamina.tasks import CancelToken, Work

_REPORT_EVERY = 8 * 1024 * 1024  # bytes between progress events of one layer
_FASTEST_FIRST = ("uncompressed", "zstd", "gzip")


class LayerMissing(LaminaError):
    """No blob of a layer is in the store, and it cannot be made."""

    kind = Kind.NOT_FOUND


class LayerCorrupt(LaminaError):
    """A layer's bytes do not have its diffID."""

    kind = Kind.INTEGRITY


def ensure_snapshot(store: Store, diff_ids: Sequence[DiffID], *, work: Work) -> ChainID | None:
    """The chain of `diff_ids` (lowest first), every layer of it unpacked; None for no layers.

    One process unpacks a chain, others wait for it. The caller holds a lease. Nothing is left
    half-written: what was unpacked when this raises are whole lower layers.

    Raises:
        LayerMissing: a layer is neither unpacked nor here as a blob.
        LayerCorrupt: every blob of a layer is damaged.
        LaminaError: UNSUPPORTED (more layers than can be mounted), INVALID (a malformed layer),
            EXHAUSTED, DENIED, SYSTEM.
        Cancelled: `cancel` was set.
    """
    chains = chain_ids(diff_ids)
    if not chains:
        return None
    if store.snapshots.exists(chains[-1]):
        return chains[-1]
    check_layers(len(chains))
    enter()
    unpacking = _Unpacking(store, work=work)
    parent: ChainID | None = None
    for diff_id, chain in zip(diff_ids, chains, strict=True):
        work.cancel.check()
        unpacking.ensure(diff_id, chain, parent)
        parent = chain
    return parent


def unpack_blob(
    store: Store,
    blob: Descriptor,
    diff_id: DiffID,
    *,
    chain: ChainID,
    parent: ChainID | None,
    open: Callable[[], IO[bytes]],
    verify: Callable[[], None],
    work: Work,
) -> None:
    """Unpack one layer from `open()`, which may still be arriving, unless its snapshot is there.

    The snapshot exists only once `verify` has returned (it waits for the blob to be whole in the
    store, and raises if it is not what it should be) and the bytes had the diffID. The caller
    holds a lease; `parent` is unpacked.

    Raises:
        LayerCorrupt: the bytes have another diffID.
        LaminaError: as `ensure_snapshot`; what `open`, its stream and `verify` raise.
    """
    unpacking = _Unpacking(store, work=work)
    if store.snapshots.exists(chain):
        return
    with store.lock(f"chain:{chain}", cancel=work.cancel):
        if not store.snapshots.exists(chain):
            unpacking.unpack(blob, diff_id, chain, parent, open=open, verify=verify)


class _Unpacking:
    """Unpacks single layers on their parents."""

    def __init__(self, store: Store, *, work: Work) -> None:
        self._store = store
        self._work = work

    def ensure(self, diff_id: DiffID, chain: ChainID, parent: ChainID | None) -> None:
        """Unpack the layer unless its snapshot is there."""
        if self._store.snapshots.exists(chain):
            return
        with self._store.lock(f"chain:{chain}", cancel=self._work.cancel):
            if self._store.snapshots.exists(chain):  # another process was faster
                return
            failure: LaminaError | None = None
            for blob in blobs_of(self._store, diff_id):
                try:
                    self.unpack(blob, diff_id, chain, parent)
                except LaminaError as error:
                    failure = error.about(f"layer {diff_id}")
                    if error.kind is not Kind.INTEGRITY:  # else another blob may be sound
                        raise
                else:
                    return
        if failure is not None:
            raise failure
        raise LayerMissing(
            f"layer {diff_id} is not in the store",
            hint="pull the image again, or build it again",
        )

    def unpack(
        self,
        blob: Descriptor,
        diff_id: DiffID,
        chain: ChainID,
        parent: ChainID | None,
        *,
        open: Callable[[], IO[bytes]] | None = None,
        verify: Callable[[], None] | None = None,
    ) -> None:
        """Make the snapshot; the caller has the chain's lock. See `unpack_blob`."""
        sweep_working(self._store)  # a killed process's half-unpacked layers
        key = working_key(f"unpack:{chain}")
        mount = self._store.snapshots.prepare(key, parent)
        try:
            image = self._store.snapshots.image_for(key)
            opener = open if open is not None else (lambda: self._store.content.open(blob.digest))
            size = self._fill(opener, blob, diff_id, mount, image)
            if verify is not None:
                verify()
            self._store.snapshots.commit(chain, key)
        except BaseException:
            self._drop(key)
            raise
        self._store.metadata.put_layer(diff_id, size, blob)

    def _fill(
        self,
        open: Callable[[], IO[bytes]],
        blob: Descriptor,
        diff_id: DiffID,
        mount: OverlayMount,
        image: str | None,
    ) -> int:
        """Make the layer, as an image if `image` says where and it can be one."""
        from lamina.system.mounts import opened_layers

        with opened_layers(mount.lowers) as lowers:
            if image is not None:
                from lamina.layer.erofs import NotWrappable

                try:
                    wrapping = self._wrapping(image, diff_id, mount, lowers)
                    return self._read(open, blob, diff_id, wrapping)
                except NotWrappable as error:
                    import logging  # 9 ms, and rarely needed

                    logging.getLogger(__name__).debug(
                        "layer %s is unpacked: it has %s", diff_id, error
                    )
                    os.unlink(image)
            return self._read(open, blob, diff_id, self._applying(mount, lowers))

    def _applying(
        self, mount: OverlayMount, lowers: list[str]
    ) -> Callable[[IO[bytes]], AppliedLayer]:
        from lamina.layer.apply import apply_layer

        return lambda tar: apply_layer(tar, mount.upper, lowers=lowers, cancel=self._work.cancel)

    def _wrapping(
        self, image: str, diff_id: DiffID, mount: OverlayMount, lowers: list[str]
    ) -> Callable[[IO[bytes]], AppliedLayer]:
        from lamina.layer.wrap import wrap_layer

        def wrap(tar: IO[bytes]) -> AppliedLayer:
            wrapped = wrap_layer(
                tar, image, expected=diff_id, lowers=lowers, cancel=self._work.cancel
            )
            root = wrapped.root
            os.chown(mount.upper, root.uid, root.gid)
            os.chmod(mount.upper, root.mode)
            os.utime(mount.upper, ns=(root.mtime_ns, root.mtime_ns))
            return wrapped.applied

        return wrap

    def _read(
        self,
        open: Callable[[], IO[bytes]],
        blob: Descriptor,
        diff_id: DiffID,
        make: Callable[[IO[bytes]], AppliedLayer],
    ) -> int:
        from lamina.layer.compress import decompressed

        with open() as file:
            counted = _Counted(file, blob, diff_id, emit=self._work.emit, clock=self._work.clock)
            applied = make(decompressed(counted))  # type: ignore[arg-type]  # only read() is used
        if applied.diff_id != diff_id:
            raise LayerCorrupt(f"blob {blob.digest} holds {applied.diff_id}")
        counted.finish()
        return applied.size

    def _drop(self, key: str) -> None:
        try:
            self._store.snapshots.remove(key)
        except LaminaError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise


class _Counted:
    """A blob's stream that reports how much of it was read."""

    def __init__(
        self,
        stream: IO[bytes],
        blob: Descriptor,
        diff_id: DiffID,
        *,
        emit: Emitter,
        clock: Callable[[], float],
    ) -> None:
        self._stream = stream
        self._blob = blob
        self._diff_id = diff_id
        self._emit = emit
        self._clock = clock
        self._current = 0
        self._reported = 0
        self._report(done=False)

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._current += len(data)
        if self._current - self._reported >= _REPORT_EVERY:
            self._report(done=False)
        return data

    def finish(self) -> None:
        """The layer is complete."""
        self._current = self._blob.size
        self._report(done=True)

    def _report(self, *, done: bool) -> None:
        self._reported = self._current
        self._emit(
            Progress(
                id=f"unpack {self._diff_id}",
                name=f"unpacking layer {self._diff_id.short()}",
                current=self._current,
                total=self._blob.size,
                at=self._clock(),
                done=done,
                subject=self._blob.digest,
                phase=Phase.UNPACKING,
            )
        )


def ensure_blob(
    store: Store,
    diff_ids: Sequence[DiffID],
    position: int,
    *,
    cancel: CancelToken,
    compression: str = "gzip",
    level: int | None = None,
    clamp_mtime: int | None = None,
) -> Descriptor:
    """A blob of layer `position` (from 0, lowest first) of the stack, in that compression.

    One that exists is taken, whatever level it was made with. Else another blob of the layer is
    compressed anew; else the layer is made again from its snapshot, with `clamp_mtime` (POSIX
    seconds) if it was made with it. The caller holds a lease.

    Raises:
        LayerMissing: no blob is here, and the snapshot is not or does not give the same bytes (a
            layer of another tool's making).
        LayerCorrupt: the only blobs there are damaged.
        LaminaError: UNSUPPORTED (unknown compression), EXHAUSTED...
        Cancelled: `cancel` was set.
    """
    diff_id = diff_ids[position]
    found = _blob_in(store, diff_id, compression)
    if found is not None:
        return found
    with store.lock(f"blob:{compression}:{diff_id}", cancel=cancel):
        found = _blob_in(store, diff_id, compression)
        if found is not None:
            return found
        making = _Making(store, diff_id, compression=compression, level=level, cancel=cancel)
        return making.recompress() or making.remake(diff_ids[: position + 1], clamp_mtime)


def blobs_of(store: Store, diff_id: DiffID) -> list[Descriptor]:
    """The blobs of a layer that are in the store, fastest to read first."""
    known = store.metadata.get_layer(diff_id)
    if known is None:
        return []
    present = [blob for blob in known.blobs if store.content.exists(blob.digest)]
    return sorted(present, key=lambda blob: _speed_rank(LAYER_COMPRESSION.get(blob.media_type, "")))


def _speed_rank(compression: str) -> int:
    known = compression in _FASTEST_FIRST
    return _FASTEST_FIRST.index(compression) if known else len(_FASTEST_FIRST)


def _blob_in(store: Store, diff_id: DiffID, compression: str) -> Descriptor | None:
    for blob in blobs_of(store, diff_id):
        if LAYER_COMPRESSION.get(blob.media_type) == compression:
            return blob
    return None


class _Discarding:
    """An ingest that is removed when the block fails: compressed halves cannot be resumed."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    def __enter__(self) -> Ingest:
        return self._ingest

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self._ingest.abort()
        self._ingest.__exit__(kind, *rest)


class _Making:
    """Makes one blob of one layer."""

    def __init__(
        self,
        store: Store,
        diff_id: DiffID,
        *,
        compression: str,
        level: int | None,
        cancel: CancelToken,
    ) -> None:
        self._store = store
        self._diff_id = diff_id
        self._compression = compression
        self._level = level
        self._cancel = cancel

    def recompress(self) -> Descriptor | None:
        """From another blob; None if there is none.

        Raises:
            LayerCorrupt: there are some, all damaged.
        """
        failure: LaminaError | None = None
        for blob in blobs_of(self._store, self._diff_id):
            try:
                return self._recompress(blob)
            except LaminaError as error:
                failure = error.about(f"layer {self._diff_id}")
                if error.kind is not Kind.INTEGRITY:
                    raise
        if failure is not None:
            raise failure
        return None

    def _recompress(self, blob: Descriptor) -> Descriptor:
        from lamina.layer.compress import decompressed
        from lamina.layer.create import recompress_layer

        with self._store.content.open(blob.digest) as file, _Discarding(self._ingest()) as ingest:
            made = recompress_layer(
                decompressed(file),
                ingest.write,
                compression=self._compression,
                level=self._level,
                digest=ingest.digest,
                cancel=self._cancel,
            )
            if made.diff_id != self._diff_id:
                raise LayerCorrupt(f"blob {blob.digest} holds {made.diff_id}")
            return self._commit(ingest, made.size)

    def remake(self, stack: Sequence[DiffID], clamp_mtime: int | None) -> Descriptor:
        """From the snapshot of the stack, if that gives the same diffID."""
        from lamina.layer.create import create_layer
        from lamina.layer.walk import overlay_items
        from lamina.system.mounts import opened_layers

        chain = chain_id(stack)
        if chain is None or not self._store.snapshots.exists(chain):
            raise self._missing("no blob and no snapshot of it is")
        enter()  # files of other owners are read
        layer = self._store.snapshots.layer(str(chain))
        with opened_layers([layer]) as (directory,), _Discarding(self._ingest()) as ingest:
            made = create_layer(
                overlay_items(directory),
                ingest.write,
                compression=self._compression,
                level=self._level,
                digest=ingest.digest,
                clamp_mtime=clamp_mtime,
                cancel=self._cancel,
            )
            if made.diff_id != self._diff_id:
                raise self._missing("its snapshot does not give the same bytes and no blob is")
            return self._commit(ingest, made.size)

    def _ingest(self) -> Ingest:
        """A new ingest: what a dead process left cannot be resumed by a compressor."""
        ref = f"layer {self._diff_id} {self._compression}"
        ingest = self._store.content.ingest(ref)
        while ingest.offset:
            ingest.abort()
            ingest = self._store.content.ingest(ref)
        return ingest

    def _commit(self, ingest: Ingest, size: int) -> Descriptor:
        length = ingest.offset
        digest: Digest = ingest.commit()
        blob = Descriptor(OCI_LAYER_OF[self._compression], digest, length)
        self._store.metadata.put_layer(self._diff_id, size, blob)
        return blob

    def _missing(self, why: str) -> LayerMissing:
        return LayerMissing(
            f"layer {self._diff_id}: {why} in the store",
            hint="pull the image again, or build it again",
        )
