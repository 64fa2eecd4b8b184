# SPDX-License-Identifier: Apache-2.0
"""A body that is sent while it arrives, through a named pipe (part of the HTTP edge).

granian's stream of an answer takes everything at once and keeps what a slow client has not read in
memory. Its file responses wait for the client; so the answer is the "file" at the end of a pipe,
of which the kernel keeps a MiB at most. When the client hangs up, granian closes its end and a write
fails; when this end is closed early, the body is shorter than Content-Length said and granian
aborts the connection. ADR 92.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import secrets
from contextlib import suppress

from lamina.errors import LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import Executor

    from lamina.registry.server.rsgi import Sender
    from lamina.registry.server.wire import Feed, Response

_log = logging.getLogger(__name__)
_PIPE = 1 << 20  # bytes; what an unprivileged process may ask for (pipe(7), pipe-max-size)
_OPENING = 10.0  # seconds until granian must have opened its end


async def send_feed(
    response: Response,
    feed: Feed,
    sender: Sender,
    *,
    directory: str,
    pool: Executor,
    idle: float,
) -> int:
    """Send the answer whose body is the feed; how many bytes went. Ends early, and with it the
    connection, if the feed fails or the client takes nothing for `idle` seconds.
    """
    path = os.path.join(directory, secrets.token_hex(16))
    os.mkfifo(path, 0o600)
    try:
        headers = [*response.headers, ("content-length", str(feed.length))]
        sender.response_file(response.status, headers, path)
        pipe = await _opened(path)
    finally:
        os.unlink(path)
    sent = 0
    try:
        with suppress(OSError):  # more than this user may have: the default will do
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
        loop = asyncio.get_running_loop()
        while sent < feed.length:
            position = feed.offset + sent
            ready = await _arrived(feed, position)
            size = min(ready, feed.offset + feed.length) - position
            data = memoryview(
                await loop.run_in_executor(pool, feed.source.read, position, min(size, _PIPE))
            )
            while data:
                async with asyncio.timeout(idle):
                    await _writable(pipe)
                count = os.write(pipe, data)
                sent += count
                data = data[count:]
    except BrokenPipeError:
        _log.debug("a client hung up")
    except TimeoutError:
        _log.debug("a client took nothing for %s seconds", idle)
    except LaminaError as error:
        _log.warning("an answer was cut off: %s", error)
    finally:
        os.close(pipe)
    return sent


async def _opened(path: str) -> int:
    """The writing end, once the HTTP server has opened the other one."""
    end = asyncio.get_running_loop().time() + _OPENING
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO or asyncio.get_running_loop().time() > end:
                raise
        await asyncio.sleep(0.002)


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


async def _writable(pipe: int) -> None:
    loop = asyncio.get_running_loop()
    free = asyncio.Event()
    loop.add_writer(pipe, free.set)
    try:
        await free.wait()
    finally:
        loop.remove_writer(pipe)
