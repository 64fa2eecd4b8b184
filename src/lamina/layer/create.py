# SPDX-License-Identifier: Apache-2.0
"""Layers in one pass: items -> tar -> sha256 -> compress -> sha256 -> write."""

from __future__ import annotations

import hashlib

from lamina.layer.compress import CHUNK, compressor
from lamina.layer.tarwrite import write_tar
from lamina.record import record
from lamina.spec.digest import DiffID, Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.layer.entry import Items
    from lamina.tasks import CancelToken

DEPTH = 8  # chunks of about 1 MiB between the two threads


@record
class CreatedLayer:
    """A layer that was made: `size` of the tar, `digest` and `compressed_size` of what was written.

    `digest` is None if nobody asked for it; without a `write` function `compressed_size` is 0.
    """

    diff_id: DiffID
    size: int
    digest: Digest | None
    compressed_size: int


class _Blob:
    """The second half of the pipeline: compress, hash, write."""

    def __init__(
        self, write: Callable[[bytes], object], *, compression: str, level: int | None, hashed: bool
    ) -> None:
        self._write = write
        self._hash = hashlib.sha256() if hashed else None
        self._compressor = compressor(compression, self._take, level=level)
        self.size = 0

    def _take(self, data: bytes) -> None:
        if self._hash is not None:
            self._hash.update(data)
        self.size += len(data)
        self._write(data)

    def put(self, data: bytes) -> None:
        self._compressor.write(data)

    def close(self) -> Digest | None:
        self._compressor.close()
        return Digest("sha256", self._hash.hexdigest()) if self._hash is not None else None


class _Thread:
    """Calls `put` in a thread of its own, at most DEPTH pieces behind; started by the first."""

    def __init__(self, put: Callable[[bytes], object]) -> None:
        import queue
        import threading

        self._put = put
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(DEPTH)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="compress-layer")
        self._thread.start()

    def put(self, data: bytes) -> None:
        """Hand over a piece; raises what an earlier one raised."""
        self._room.acquire()
        if self._error is not None:
            raise self._error
        self._queue.put(data)

    def join(self) -> None:
        """Wait until everything is done; raises what a piece raised."""
        self.stop()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End the thread, once it has done what it was given."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._put(data)
                except BaseException as error:  # noqa: BLE001  # raised again by the owner
                    self._error = error
            self._room.release()


class _Pipeline:
    """Takes the tar's pieces; starts the thread only when more than CHUNK bytes came."""

    def __init__(self, blob: _Blob | None, cancel: CancelToken | None) -> None:
        self._blob = blob
        self._cancel = cancel
        self._hash = hashlib.sha256()
        self._thread: _Thread | None = None
        self._early: list[bytes] = []
        self.size = 0

    def take(self, data: bytes) -> None:
        if self._cancel is not None:
            self._cancel.check()
        self.size += len(data)
        if self._blob is None:
            self._hash.update(data)
            return
        if self._thread is None and self.size <= CHUNK:
            self._early.append(data)
        else:
            self._hand_over(self._blob, data)
        self._hash.update(data)

    def _hand_over(self, blob: _Blob, data: bytes) -> None:
        if self._thread is None:
            self._thread = _Thread(blob.put)
            for piece in self._early:
                self._thread.put(piece)
            self._early = []
        self._thread.put(data)

    def stop(self) -> None:
        if self._thread is not None:
            self._thread.stop()

    def finish(self) -> CreatedLayer:
        diff_id = DiffID(Digest("sha256", self._hash.hexdigest()))
        if self._blob is None:
            return CreatedLayer(diff_id, self.size, None, 0)
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        for piece in self._early:
            self._blob.put(piece)
        digest = self._blob.close()
        return CreatedLayer(diff_id, self.size, digest, self._blob.size)


def create_layer(
    items: Items,
    write: Callable[[bytes], object] | None,
    *,
    compression: str = "gzip",
    level: int | None = None,
    hashed: bool = True,
    clamp_mtime: int | None = None,
    cancel: CancelToken | None = None,
) -> CreatedLayer:
    """Make a layer of `items`, which must be in `entry.sort_key` order to be reproducible.

    `write` gets the compressed bytes in order, from one thread at a time but not always the
    caller's; None computes the diffID only. The bytes do not depend on threads or timing. An
    ingest hashes what it is given: with it, `hashed` is False and its commit tells the digest.

    Raises:
        LaminaError: what `write_tar`, `compressor` and `write` raise.
        Cancelled: `cancel` was set.
    """
    blob = (
        None if write is None else _Blob(write, compression=compression, level=level, hashed=hashed)
    )
    pipeline = _Pipeline(blob, cancel)
    try:
        write_tar(items, pipeline.take, clamp_mtime=clamp_mtime)
        return pipeline.finish()
    except BaseException:
        pipeline.stop()
        raise
