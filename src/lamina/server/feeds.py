# SPDX-License-Identifier: Apache-2.0
"""A body that is sent while it arrives (part of the HTTP edge).

No thread waits for what has not arrived: many clients may wait for one slow upstream.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from lamina.errors import LaminaError
from lamina.server.pipes import fifo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from concurrent.futures import Executor
    from typing import Protocol

    from lamina.server.wire import Feed, Response

    class Sender(Protocol):
        """RSGI's protocol object of a request."""

        def __aiter__(self) -> AsyncIterator[bytes]: ...
        def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None: ...
        def response_bytes(
            self, status: int, headers: list[tuple[str, str]], body: bytes
        ) -> None: ...
        def response_file(self, status: int, headers: list[tuple[str, str]], file: str) -> None: ...
        def response_file_range(
            self, status: int, headers: list[tuple[str, str]], file: str, start: int, end: int
        ) -> None: ...


_log = logging.getLogger(__name__)
_PIECE = 1 << 20  # bytes


async def send_feed(
    response: Response, feed: Feed, sender: Sender, *, pool: Executor, idle: float
) -> int:
    """Send the answer whose body is the feed; how many bytes went. Ends early, and with it the
    connection, if the feed fails or the client takes nothing for `idle` seconds.
    """
    headers = [*response.headers, ("content-length", str(feed.length))]
    async with fifo() as (path, opened):
        sender.response_file(response.status, headers, path)
        writer = await opened()
    if writer is None:  # the client has gone
        return 0
    loop = asyncio.get_running_loop()
    sent = 0
    try:
        while sent < feed.length:
            position = feed.offset + sent
            ready = await _arrived(feed, position)
            size = min(ready, feed.offset + feed.length) - position
            data = await loop.run_in_executor(pool, feed.source.read, position, min(size, _PIECE))
            async with asyncio.timeout(idle):
                await writer.write(data)
            sent += len(data)
    except (ConnectionError, TimeoutError):
        _log.debug("a client hung up, or took nothing for %s seconds", idle)
    except LaminaError as error:
        _log.warning("an answer was cut off: %s", error)
    finally:
        writer.close()
    return sent


async def _arrived(feed: Feed, position: int) -> int:
    """How many bytes there are, once there are more than `position`."""
    loop = asyncio.get_running_loop()
    news = asyncio.Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(news.set)

    feed.source.watch(wake)
    try:
        while (ready := feed.source.ready()) <= position:
            await news.wait()
            news.clear()
        return ready
    finally:
        feed.source.unwatch(wake)
