# SPDX-License-Identifier: Apache-2.0
"""Layers in one pass: items -> tar -> sha256 -> compress -> sha256 -> write.

Three threads for what is larger than one chunk: the caller's reads and hashes the tar, one
compresses, one hashes and writes what comes out. Each of these releases the GIL. The tar goes
through a few buffers that are used again and again, so memory is flat and faulted in once.
"""

from __future__ import annotations

from lamina.layer.compress import CHUNK, compressor
from lamina.layer.tarwrite import new_buffer, write_tar
from lamina.spec.digest import DiffID, Digest
from lamina.start.hashing import Sha256
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    from lamina.layer.entry import Items
    from lamina.layer.twin import Twin
    from lamina.tasks import CancelToken

DEPTH = 4  # chunks of 1 MiB on their way to a thread


class CreatedLayer(Record):
    """A layer that was made: `size` of the tar, `digest` and `compressed_size` of what was written.

    Without a `write` function nothing was compressed: `digest` is None, `compressed_size` 0.
    """

    diff_id: DiffID
    size: int
    digest: Digest | None
    compressed_size: int


class _Output:
    """Where the blob goes. Hashed here, unless `digest` tells what its writer has hashed anyway."""

    def __init__(
        self, write: Callable[[bytes], object], digest: Callable[[], Digest] | None
    ) -> None:
        self._write = write
        self._hash = Sha256() if digest is None else None
        self._told = digest
        self.size = 0

    def put(self, data: bytes) -> None:
        if self._hash is not None:
            self._hash.update(data)
        self.size += len(data)
        self._write(data)

    def digest(self) -> Digest:
        if self._told is not None:
            return self._told()
        assert self._hash is not None
        return Digest("sha256", self._hash.hexdigest())


class _Thread:
    """Calls `put` in a thread of its own, at most DEPTH pieces behind."""

    def __init__(self, put: Callable[[bytes], object], name: str) -> None:
        import queue
        import threading

        self._put = put
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()  # a semaphore in C
        for _ in range(DEPTH):
            self._room.put(None)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name)
        self._thread.start()

    def put(self, data: bytes) -> None:
        """Hand over a piece; raises what an earlier one raised."""
        self._room.get()
        if self._error is not None:
            raise self._error
        self._queue.put(data)

    def stop(self) -> None:
        """End the thread, once it has done what it was given. Idempotent."""
        self._queue.put(None)
        self._thread.join()

    def check(self) -> None:
        """Raise what a piece raised."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._put(data)
                except BaseException as error:  # noqa: BLE001  # raised again by the owner
                    self._error = error
            del data  # a buffer must not be held while waiting for the next
            self._room.put(None)


class _Pipeline:
    """Takes the tar's chunks; starts threads only for more than one.

    The diffID of an uncompressed layer is its blob's digest, which is then the only one computed.
    """

    def __init__(
        self,
        output: _Output | None,
        compression: str,
        level: int | None,
        cancel: CancelToken | None,
        *,
        is_caller_busy: bool = False,
    ) -> None:
        """With `is_caller_busy` the compressing thread hashes the tar, too."""
        self._is_caller_busy = is_caller_busy
        self._output = output
        self._cancel = cancel
        is_plain = output is not None and compression == "uncompressed"
        self._hash = None if is_plain else Sha256()
        self._compressor = None
        if output is not None:
            self._compressor = compressor(compression, self._compressed, level=level)
        self._is_plain = is_plain
        self._free: list[bytearray] = []
        self._packing: _Thread | None = None
        self._writing: _Thread | None = None
        self._size = 0

    def buffer(self) -> bytearray:
        """One for `write_tar` to fill; those in use are as many as the thread may be behind."""
        return self._free.pop() if self._free else new_buffer()

    def take(self, data: bytes) -> None:
        """A chunk of the tar, a view of one of the buffers if it is a view."""
        if self._cancel is not None:
            self._cancel.check()
        self._size += len(data)
        if self._compressor is not None and (self._packing is not None or len(data) == CHUNK):
            if self._packing is None:
                self._start()
            assert self._packing is not None
            self._packing.put(data)
        else:
            self._pack(data)
        if self._hash is not None and not self._is_caller_busy:
            self._hash.update(data)

    def _start(self) -> None:
        self._packing = _Thread(self._pack, "compress-layer")
        if not self._is_plain:  # otherwise there is nothing between the two
            assert self._output is not None
            self._writing = _Thread(self._output.put, "write-layer")

    def _pack(self, data: bytes) -> None:
        if self._hash is not None and self._is_caller_busy:
            self._hash.update(data)
        if self._compressor is not None:
            self._compressor.write(data)
        buffer = getattr(data, "obj", None)
        if buffer is not None:
            self._free.append(buffer)

    def _compressed(self, data: bytes) -> None:
        if self._writing is not None:
            self._writing.put(data)
            return
        assert self._output is not None
        self._output.put(data)

    def stop(self) -> None:
        """End the threads. Idempotent."""
        for thread in (self._packing, self._writing):
            if thread is not None:
                thread.stop()
        # zstd's is 12 MiB, and it refers to this object: nobody waits for the garbage collector
        self._compressor = self._packing = self._writing = None
        self._free.clear()

    def finish(self) -> CreatedLayer:
        """Wait for the threads; what was made."""
        if self._packing is not None:
            self._packing.stop()
            self._packing.check()
        if self._compressor is not None:
            self._compressor.close()
        if self._writing is not None:
            self._writing.stop()
            self._writing.check()
        digest = self._output.digest() if self._output is not None else None
        found = digest if self._hash is None else Digest("sha256", self._hash.hexdigest())
        assert found is not None
        size = self._output.size if self._output is not None else 0
        return CreatedLayer(DiffID(found), self._size, digest, size)


def _both(
    first: Callable[[bytes], object], second: Callable[[bytes], object]
) -> Callable[[bytes], object]:
    def take(data: bytes) -> None:
        first(data)
        second(data)

    return take


def create_layer(
    items: Items,
    write: Callable[[bytes], object] | None,
    *,
    compression: str = "gzip",
    level: int | None = None,
    digest: Callable[[], Digest] | None = None,
    clamp_mtime: int | None = None,
    cancel: CancelToken | None = None,
    twin: Twin | None = None,
) -> CreatedLayer:
    """Make a layer of `items`, which must be in `entry.sort_key` order to be reproducible.

    `write` gets the blob's bytes in order, from one thread at a time but not always the caller's;
    they may be a view that is not valid afterwards. None computes the diffID only. `digest` tells
    the sha256 of all that `write` got, if it hashes that anyway, as an ingest does. The bytes do
    not depend on threads or timing. `twin` makes another form of the layer in the same pass.

    Raises:
        LaminaError: what `write_tar`, `compressor` and `write` raise.
        Cancelled: `cancel` was set.
    """
    output = None if write is None else _Output(write, digest)
    is_busy = twin is not None and output is not None
    pipeline = _Pipeline(output, compression, level, cancel, is_caller_busy=is_busy)
    take: Callable[[bytes], object] = pipeline.take
    member = None
    if twin is not None:
        items, take, member = twin.items(items), _both(twin.take, take), twin.member
    try:
        write_tar(items, take, clamp_mtime=clamp_mtime, take=pipeline.buffer, member=member)
        return pipeline.finish()
    finally:
        pipeline.stop()


def recompress_layer(
    tar: IO[bytes],
    write: Callable[[bytes], object],
    *,
    compression: str,
    level: int | None = None,
    digest: Callable[[], Digest] | None = None,
    cancel: CancelToken | None = None,
) -> CreatedLayer:
    """A layer of these bytes, as they are. As `create_layer`, and what reading `tar` raises."""
    pipeline = _Pipeline(_Output(write, digest), compression, level, cancel)
    try:
        while data := tar.read(CHUNK):
            pipeline.take(data)
        return pipeline.finish()
    finally:
        pipeline.stop()
