# SPDX-License-Identifier: Apache-2.0
"""Bodies in pieces through a FIFO, as fast as the client takes them.

granian's own streamed response keeps in memory whatever it is given and its client did not take yet
(measured: 240 MiB for a client that stands still). A file it reads only as far as it can send, and
to it a FIFO is a file.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import tempfile
from contextlib import asynccontextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_PATIENCE = 30.0  # seconds in which the server opens the file: a loaded machine is slow
_POLL = 0.002  # seconds


class PipeWriter(asyncio.Protocol):
    """The writing end on the event loop."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._ready = asyncio.Event()
        self._ready.set()
        self._lost = False

    async def write(self, data: bytes) -> None:
        """Return when the next piece may come.

        Raises:
            ConnectionResetError: nobody reads any more.
        """
        assert self._transport is not None
        if not self._lost:
            self._transport.write(data)
        await self._ready.wait()
        if self._lost:
            raise ConnectionResetError

    def close(self) -> None:
        """What was written still goes out. Idempotent."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        transport.set_write_buffer_limits(high=0)  # one piece in memory

    def pause_writing(self) -> None:
        self._ready.clear()

    def resume_writing(self) -> None:
        self._ready.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._ready.set()


@asynccontextmanager
async def fifo() -> AsyncIterator[tuple[str, Callable[[], Awaitable[PipeWriter | None]]]]:
    """(path, opener) of a new FIFO. The opener gives the writing end once somebody has opened the
    path for reading, which has no name from then on; None if nobody does.
    """
    directory = tempfile.mkdtemp(prefix="lamina-registry-")
    path = os.path.join(directory, "body")
    try:
        os.mkfifo(path, 0o600)

        async def opened() -> PipeWriter | None:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + _PATIENCE
            while loop.time() < deadline:
                try:
                    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                except OSError as error:
                    if error.errno != errno.ENXIO:  # nobody reads yet
                        raise
                    await asyncio.sleep(_POLL)
                    continue
                shutil.rmtree(directory, ignore_errors=True)  # kill -9 leaves nothing
                _, writer = await loop.connect_write_pipe(
                    PipeWriter, os.fdopen(descriptor, "wb", 0)
                )
                return writer
            return None

        yield path, opened
    finally:
        shutil.rmtree(directory, ignore_errors=True)
