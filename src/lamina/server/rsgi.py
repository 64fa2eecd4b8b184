# SPDX-License-Identifier: Apache-2.0
"""The HTTP edge: granian's RSGI protocol to `wire` and back, on one event loop.

Reads that the database answers in microseconds run on the loop; everything that flushes, hashes or
walks runs in a pool of threads. A body is taken in pieces of a MiB, and the next piece is received
while the one before is written and hashed, so that memory does not grow with blobs.
"""

from __future__ import annotations

import asyncio
import logging
import time

from lamina.errors import LaminaError
from lamina.server.answers import answer_of_error
from lamina.server.feeds import send_feed
from lamina.server.pipes import PipeWriter, fifo
from lamina.server.quotas import OverQuota
from lamina.server.wire import (
    Blocking,
    Buffered,
    Feed,
    FileRegion,
    Later,
    Refusal,
    Request,
    Response,
    Stream,
    Streamed,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor
    from typing import Any, Protocol

    from lamina.server.feeds import Sender
    from lamina.server.limits import EdgeLimits
    from lamina.server.metrics import Metrics
    from lamina.server.wire import Answer, Headers

    class Scope(Protocol):
        """RSGI's scope (its specification, §HTTP scope)."""

        proto: str
        method: str
        path: str
        query_string: str
        client: str
        scheme: str
        headers: Headers


_log = logging.getLogger(__name__)
# How many times its limit is read of a body that is too large: a client that is still sending when
# the connection closes never sees why.
_DRAINED = 4
_PIECE = 1 << 20  # bytes of a body that one thread call writes


class Edge:
    """The RSGI application. `answer` gives the first step of a request."""

    def __init__(
        self,
        answer: Callable[[Request], Answer],
        *,
        pool: Executor,
        metrics: Metrics,
        limits: EdgeLimits,
        access: Callable[[Request, int, int, float], None] | None = None,
    ) -> None:
        self._answer = answer
        self._pool = pool
        self._metrics = metrics
        self._limits = limits
        self._access = access
        self._active: dict[str, int] = {}
        self._tasks: set[asyncio.Task[Any] | None] = set()
        self.closing = False

    @property
    def in_flight(self) -> int:
        """How many requests are being answered."""
        return len(self._tasks)

    def cut(self) -> None:
        """End what is still being answered: the server waits for ever for the end of a body whose next
        piece does not come.
        """
        for task in self._tasks:
            if task is not None:
                task.cancel()

    async def __rsgi__(self, scope: Scope, sender: Sender) -> None:
        if scope.proto != "http":
            return
        started = time.perf_counter()
        client = scope.client.rpartition(":")[0]
        request = Request(
            scope.method, scope.path, scope.query_string, scope.headers, client, scope.scheme
        )
        task = asyncio.current_task()
        self._tasks.add(task)
        active = self._active[client] = self._active.get(client, 0) + 1
        try:
            response = await self._respond(request, sender, active=active)
            sent = await self._send(request, response, sender)
        finally:
            self._tasks.discard(task)
            left = self._active[client] - 1
            if left:
                self._active[client] = left
            else:
                del self._active[client]
        took = time.perf_counter() - started
        self._metrics.count(request.method, response.status, took)
        if self._access is not None:
            self._access(request, response.status, sent, took)

    async def _send(self, request: Request, response: Response, sender: Sender) -> int:
        body = response.body
        if isinstance(body, Feed):
            return await send_feed(response, body, sender, pool=self._pool, idle=self._limits.idle)
        if isinstance(body, Stream) and request.method != "HEAD":
            return await self._send_stream(request, response, body, sender)
        return _send(request, response, sender, closing=self.closing)

    async def _respond(self, request: Request, sender: Sender, *, active: int) -> Response:
        try:
            if self._limits.per_client and active > self._limits.per_client:
                raise Refusal(
                    "TOOMANYREQUESTS", "too many requests at once", headers=(("retry-after", "1"),)
                )
            step = self._answer(request)
            while not isinstance(step, Response):
                step = await self._do(step, request, sender)
            return step
        except LaminaError as error:
            response = answer_of_error(error)
            if isinstance(error, OverQuota):
                self._metrics.add(
                    "lamina_registry_quota_refusals_total", 1, help="Requests over a quota."
                )
            if response.status >= 500:
                _log.error("%s %s: %s", request.method, request.path, error)
            return response
        except TimeoutError:
            return Refusal("SIZE_INVALID", "the body did not arrive in time", status=408).response()
        except OSError as error:  # the disk
            _log.error("%s %s: %s", request.method, request.path, error)
            return Refusal("UNAVAILABLE", "the registry cannot do this now").response()
        except Exception:  # noqa: BLE001  # the HTTP edge: whatever arrives here is a bug
            _log.exception("%s %s: a bug in lamina", request.method, request.path)
            return Refusal("UNKNOWN", "internal error").response()

    async def _do(
        self, step: Blocking | Later | Buffered | Streamed, request: Request, sender: Sender
    ) -> Answer:
        loop = asyncio.get_running_loop()
        if isinstance(step, Later):
            # shielded: others wait for the same result
            return step.then(await asyncio.shield(asyncio.wrap_future(step.result)))
        if isinstance(step, Blocking):
            return await loop.run_in_executor(self._pool, step.run)
        if isinstance(step, Buffered):
            raw = await self._read(sender, request, limit=step.limit)
            return await loop.run_in_executor(self._pool, step.then, raw)
        return await self._stream(step, request, sender)

    async def _read(self, sender: Sender, request: Request, *, limit: int) -> bytes:
        declared = request.header("content-length")
        parts: list[bytes] = []
        size = 0
        async with asyncio.timeout(self._limits.idle):
            async for part in sender:
                size += len(part)
                if size <= limit:
                    parts.append(part)
                    continue
                parts.clear()
                if size > _DRAINED * limit:
                    break
        if size > limit:
            raise _too_large(limit)
        if declared.isdecimal() and int(declared) != size:
            raise Refusal("SIZE_INVALID", "the body ended early")
        return b"".join(parts)

    async def _stream(self, step: Streamed, request: Request, sender: Sender) -> Response:
        """The body into the step, and its answer; written pieces overlap with received ones."""
        loop = asyncio.get_running_loop()
        writing: asyncio.Future[None] | None = None
        parts: list[bytes] = []
        size = total = 0
        end = loop.time() + self._limits.body
        try:
            async with asyncio.timeout(self._limits.idle) as patience:
                async for part in sender:
                    parts.append(part)
                    size += len(part)
                    if size < _PIECE:
                        continue
                    total += size
                    if writing is not None:
                        await writing
                    writing = loop.run_in_executor(self._pool, step.write, b"".join(parts))
                    parts, size = [], 0
                    patience.reschedule(min(loop.time() + self._limits.idle, end))
            if writing is not None:
                await writing
            writing = None
            total += size
            declared = request.header("content-length")
            complete = not declared or total == int(declared)

            def finish() -> Response:
                if parts:
                    step.write(b"".join(parts))
                return step.finish(complete)

            return await loop.run_in_executor(self._pool, finish)
        finally:
            if writing is not None:
                await asyncio.wait([writing])
                writing.exception()  # looked at: the first error is the one that is told
            await loop.run_in_executor(self._pool, step.close)

    async def _send_stream(
        self, request: Request, response: Response, body: Stream, sender: Sender
    ) -> int:
        """The pieces; the next one is fetched while one is sent. Returns the bytes sent.

        A body that is short, because the source failed, ends the connection: that is how a client
        learns of it (RFC 9112 §8).
        """
        loop = asyncio.get_running_loop()
        pieces = body.pieces()
        try:
            try:
                first = await loop.run_in_executor(self._pool, next, pieces, b"")
            except LaminaError as error:
                _log.error("%s %s: %s", request.method, request.path, error)
                return _send(request, answer_of_error(error), sender, closing=self.closing)
            headers = [*response.headers, ("content-length", str(body.length))]
            if self.closing:
                headers.append(("connection", "close"))
            if not first:
                sender.response_bytes(response.status, headers, b"")
                return 0
            async with fifo() as (path, opened):
                sender.response_file(response.status, headers, path)
                return await self._copy(request, first, pieces, await opened())
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                await loop.run_in_executor(self._pool, close)

    async def _copy(
        self, request: Request, piece: bytes, pieces: Iterator[bytes], writer: PipeWriter | None
    ) -> int:
        """Send the pieces as fast as the client takes them, and close the writer."""
        if writer is None:  # the client has gone
            return 0
        loop = asyncio.get_running_loop()
        sent = 0
        try:
            while piece:
                reading = loop.run_in_executor(self._pool, next, pieces, b"")
                try:
                    await writer.write(piece)
                    sent += len(piece)
                except asyncio.CancelledError:
                    writer.close()  # whatever keeps the next piece from coming
                    raise
                finally:
                    await asyncio.wait([reading])
                    reading.exception()  # looked at: the first error is the one that is told
                piece = reading.result()
        except ConnectionError:  # the client has gone
            pass
        except LaminaError as error:
            _log.error("%s %s: %s", request.method, request.path, error)
        finally:
            writer.close()
        return sent


def _send(request: Request, response: Response, sender: Sender, *, closing: bool) -> int:
    """Hand the response to the server; returns the body's length."""
    headers = list(response.headers)
    if closing:
        headers.append(("connection", "close"))
    body = response.body
    assert not isinstance(body, Feed)
    if isinstance(body, (FileRegion, Stream)):
        headers.append(("content-length", str(body.length)))
        if request.method == "HEAD":
            sender.response_empty(response.status, headers)
            return 0
        assert isinstance(body, FileRegion)
        if body.length == 0:
            sender.response_bytes(response.status, headers, b"")
        elif body.whole:
            sender.response_file(response.status, headers, body.path)
        else:
            end = body.offset + body.length
            sender.response_file_range(response.status, headers, body.path, body.offset, end)
        return body.length
    if request.method == "HEAD" or response.status in {204, 304}:
        if response.status not in {204, 304}:
            headers.append(("content-length", str(len(body))))
        sender.response_empty(response.status, headers)
        return 0
    sender.response_bytes(response.status, headers, body)
    return len(body)


def _too_large(limit: int) -> Refusal:
    return Refusal(
        "MANIFEST_INVALID", f"manifests of more than {limit} bytes are not taken", status=413
    )
