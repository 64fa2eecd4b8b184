# SPDX-License-Identifier: Apache-2.0
"""The forwarder: serves a published port's sockets in user space, by splice(2).

It carries what DNAT does not see (IPv6 clients) and everything where there is no nft. One thread
with one epoll serves all ports of a process; it starts with the first port and ends with `close`.

Rules of a TCP connection: two `_Flow`s (one a direction), each a pipe. An event on either socket
pumps both flows until neither moves; registration is edge-triggered, which is right exactly
because a pump stops only at EAGAIN. End of input on one side, once the pipe is empty, shuts the
other side's output (half-close); both ended, or any error, closes the connection.

A UDP client gets a socket of its own towards the container for as long as it is not idle.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import struct
import threading
import time

from lamina.system.netns import CLONE_NEWNET, setns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LOG = logging.getLogger(__name__)

_CHUNK = 65536  # the capacity of a pipe
_ROUNDS = 32  # pumps of one connection in a row, so that a fast one does not starve the others
_MAX_DATAGRAM = 65535
_MAX_CLIENTS = 1024  # of one UDP port: the longest idle one makes room
_UDP_IDLE = 90.0  # seconds, as docker-proxy
_PAUSE = 0.2  # seconds without accepting after the process ran out of descriptors
_EDGE = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_SPLICE_FLAGS = 2 | 1  # SPLICE_F_NONBLOCK | SPLICE_F_MOVE
_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50


class Forwarder:
    """Serves sockets until `close`. Its methods may be called from any thread.

    `namespace` is a descriptor of the network namespace from which containers are reached, -1 for
    this process's.
    """

    def __init__(self, *, namespace: int = -1) -> None:
        self._namespace = namespace
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: _Loop | None = None

    def serve(self, sockets: list[socket.socket], *, ip: str, port: int) -> None:
        """Forward what arrives on bound, non-blocking sockets to `ip`:`port`; owns them now."""
        with self._lock:
            if self._loop is None:
                self._loop = _Loop(self._namespace)
                self._thread = threading.Thread(
                    target=self._loop.run, name="port-forwarder", daemon=True
                )
                self._thread.start()
            loop = self._loop
        target = (ip, port)
        loop.call(lambda: loop.add_services(sockets, target))

    def stop(self, sockets: list[socket.socket]) -> None:
        """Close these sockets and the connections they took; they are closed on return."""
        with self._lock:
            loop = self._loop
        if loop is None:
            for bound in sockets:
                bound.close()
        else:
            loop.call(lambda: loop.drop_services(sockets))

    def close(self) -> None:
        """Close everything and end the thread. Idempotent."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.finish()
            thread.join()


class _Loop:
    """The thread's side. Only `call` and `finish` are for other threads."""

    def __init__(self, namespace: int) -> None:
        self._namespace = namespace
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._handlers: dict[int, Callable[[], None]] = {}
        self._services: dict[socket.socket, _Service] = {}
        self._calls: list[tuple[Callable[[], object], threading.Event]] = []
        self._calls_lock = threading.Lock()
        self._again: set[_Connection] = set()
        self._paused: dict[int, float] = {}
        self._finished = False

    def call(self, function: Callable[[], object]) -> None:
        """Run `function` in the loop's thread and wait until it has run."""
        done = threading.Event()
        with self._calls_lock:
            if self._finished:
                return
            self._calls.append((function, done))
            os.eventfd_write(self._wake, 1)
        done.wait()

    def finish(self) -> None:
        """Ask the loop to end."""
        self.call(self._end)

    def _end(self) -> None:
        with self._calls_lock:
            self._finished = True

    def run(self) -> None:
        """Serve until `finish`."""
        try:
            if self._namespace >= 0:
                setns(self._namespace, CLONE_NEWNET)  # of this thread alone
            while not self._finished:
                self._turn()
        finally:
            self._end()
            self.drop_services(list(self._services))
            self._take_calls()
            self._epoll.close()
            os.close(self._wake)

    def _turn(self) -> None:
        for descriptor, _ in self._epoll.poll(self._timeout()):
            if descriptor == self._wake:
                self._take_calls()
            elif descriptor in self._handlers:
                self._handlers[descriptor]()
        for connection in tuple(self._again):
            self._again.discard(connection)
            connection.pump()
        self._tick()

    def _timeout(self) -> float:
        if self._again:
            return 0
        if self._paused:
            return _PAUSE
        return 10 if any(service.clients for service in self._services.values()) else -1

    def _take_calls(self) -> None:
        with self._calls_lock:
            calls, self._calls = self._calls, []
        if calls:
            os.eventfd_read(self._wake)
        for function, done in calls:
            try:
                function()
            finally:
                done.set()

    def _tick(self) -> None:
        if not self._paused and not any(s.clients for s in self._services.values()):
            return
        now = time.monotonic()
        for descriptor, until in tuple(self._paused.items()):
            if now >= until:
                del self._paused[descriptor]
                self._epoll.modify(descriptor, select.EPOLLIN)
        for service in self._services.values():
            service.expire(now)

    def watch(self, descriptor: int, events: int, handler: Callable[[], None]) -> None:
        """Call `handler` on events of the descriptor."""
        self._handlers[descriptor] = handler
        self._epoll.register(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Stop watching; call it before the descriptor is closed."""
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def pause(self, descriptor: int) -> None:
        """Ignore a listening socket for a moment."""
        self._paused[descriptor] = time.monotonic() + _PAUSE
        self._epoll.modify(descriptor, 0)

    def pump_again(self, connection: _Connection) -> None:
        """Pump it once more after the other descriptors had their turn."""
        self._again.add(connection)

    def forget_connection(self, connection: _Connection) -> None:
        """Drop a connection that has ended."""
        self._again.discard(connection)

    def add_services(self, sockets: list[socket.socket], target: tuple[str, int]) -> None:
        """Start serving sockets."""
        for bound in sockets:
            self._add_service(bound, target)

    def drop_services(self, sockets: list[socket.socket]) -> None:
        """Stop serving sockets and close them."""
        for bound in sockets:
            self._drop_service(bound)

    def _add_service(self, bound: socket.socket, target: tuple[str, int]) -> None:
        service = _Service(self, bound, target)
        self._services[bound] = service
        is_tcp = bound.type & ~socket.SOCK_NONBLOCK == socket.SOCK_STREAM
        handler = service.accept if is_tcp else service.receive
        self.watch(bound.fileno(), select.EPOLLIN, handler)

    def _drop_service(self, bound: socket.socket) -> None:
        service = self._services.pop(bound, None)
        if service is not None:
            self._paused.pop(bound.fileno(), None)
            self.forget(bound.fileno())
            service.close()
        bound.close()


class _Service:
    """One published socket and what came through it."""

    def __init__(self, loop: _Loop, bound: socket.socket, target: tuple[str, int]) -> None:
        self._loop = loop
        self._bound = bound
        self._target = target
        self._connections: set[_Connection] = set()
        self.clients: dict[object, _Client] = {}
        if bound.type & ~socket.SOCK_NONBLOCK == socket.SOCK_DGRAM:
            # The reply must come from the address the client wrote to, which a wildcard hides.
            if bound.family == socket.AF_INET:
                bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            else:
                bound.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)

    def accept(self) -> None:
        try:
            client, _ = self._bound.accept()
        except OSError as error:
            if error.errno in _NO_RESOURCES:
                self._loop.pause(self._bound.fileno())
            return  # anything else concerns that one client, who has gone
        try:
            connection = _Connection(self._loop, client, self._target, self._connections)
        except OSError as error:
            _LOG.debug("cannot forward a connection to %s: %s", self._target, error)
            client.close()
            if error.errno in _NO_RESOURCES:
                self._loop.pause(self._bound.fileno())
            return
        self._connections.add(connection)

    def receive(self) -> None:
        """Take one datagram; the level-triggered poll brings the next."""
        try:
            data, ancillary, _, source = self._bound.recvmsg(_MAX_DATAGRAM, 128)
        except OSError:
            return
        client = self.clients.pop(source, None)
        if client is None:
            client = self._new_client(source, ancillary)
            if client is None:
                return
        self.clients[source] = client  # the end of the dict is the latest heard
        client.send(data)

    def _new_client(
        self, source: object, ancillary: list[tuple[int, int, bytes]]
    ) -> _Client | None:
        if len(self.clients) >= _MAX_CLIENTS:
            self.clients.pop(next(iter(self.clients))).close()
        try:
            return _Client(self._loop, self._bound, source, self._target, _reply_info(ancillary))
        except OSError as error:
            _LOG.debug("cannot forward a datagram to %s: %s", self._target, error)
            return None

    def expire(self, now: float) -> None:
        for source, client in tuple(self.clients.items()):
            if now - client.heard >= _UDP_IDLE:
                del self.clients[source]
                client.close()

    def close(self) -> None:
        for connection in tuple(self._connections):
            connection.close()
        for client in self.clients.values():
            client.close()
        self.clients.clear()


def _reply_info(ancillary: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Ancillary data that makes a reply leave from the address that the datagram came to."""
    for level, type_, raw in ancillary:
        if (level, type_) == (socket.IPPROTO_IP, _IP_PKTINFO) and len(raw) >= 12:
            _, _, address = struct.unpack_from("=I4s4s", raw)
            return [(level, type_, struct.pack("=I4s4s", 0, address, bytes(4)))]
        if (level, type_) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO) and len(raw) >= 20:
            return [(level, type_, raw[:20])]
    return []


class _Client:
    """A UDP client: its own connected socket towards the container."""

    def __init__(
        self,
        loop: _Loop,
        bound: socket.socket,
        source: object,
        target: tuple[str, int],
        reply_info: list[tuple[int, int, bytes]],
    ) -> None:
        self.heard = time.monotonic()
        self._loop = loop
        self._bound = bound
        self._source = source
        self._reply_info = reply_info
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(target)
        except OSError:
            self._socket.close()
            raise
        loop.watch(self._socket.fileno(), select.EPOLLIN, self._reply)

    def send(self, data: bytes) -> None:
        self.heard = time.monotonic()
        try:
            self._socket.send(data)
        except OSError as error:  # nobody listens in the container, or its queue is full: UDP loses
            _LOG.debug("datagram lost: %s", error)

    def _reply(self) -> None:
        try:
            data = self._socket.recv(_MAX_DATAGRAM)
            self.heard = time.monotonic()
            self._bound.sendmsg([data], self._reply_info, 0, self._source)  # type: ignore[arg-type]  # an address as recvmsg gave it
        except OSError as error:
            _LOG.debug("reply lost: %s", error)

    def close(self) -> None:
        self._loop.forget(self._socket.fileno())
        self._socket.close()


class _Flow:
    """One direction: `source` -> pipe -> `sink`."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self._source = source
        self._sink = sink
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._held = 0
        self._ended = False
        self.done = False

    def pump(self) -> bool:
        """Move what can be moved now; whether anything moved."""
        moved = False
        if not self._ended and self._held < _CHUNK:
            count = _splice(self._source.fileno(), self._write)
            if count == 0:
                self._ended = True
                moved = True
            elif count is not None:
                self._held += count
                moved = True
        if self._held:
            count = _splice(self._read, self._sink.fileno(), self._held)
            if count:
                self._held -= count
                moved = True
        if self._ended and not self._held and not self.done:
            self.done = True
            self._sink.shutdown(socket.SHUT_WR)
        return moved

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


def _splice(source: int, sink: int, count: int = _CHUNK) -> int | None:
    """Bytes moved, 0 at the end of input, None if it would block. Raises OSError."""
    try:
        return os.splice(source, sink, count, flags=_SPLICE_FLAGS)
    except BlockingIOError:
        return None


class _Connection:
    """A TCP client and its connection to the container."""

    def __init__(
        self,
        loop: _Loop,
        client: socket.socket,
        target: tuple[str, int],
        siblings: set[_Connection],
    ) -> None:
        self._loop = loop
        self._client = client
        self._siblings = siblings
        self._flows: list[_Flow] = []
        self._connected = False
        self._closed = False
        client.setblocking(False)
        self._server = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            for end in (client, self._server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._flows.append(_Flow(client, self._server))
            self._flows.append(_Flow(self._server, client))
            code = self._server.connect_ex(target)
            if code not in {0, errno.EINPROGRESS}:
                raise OSError(code, os.strerror(code))
        except OSError:
            for flow in self._flows:
                flow.close()
            self._server.close()
            raise
        loop.watch(client.fileno(), _EDGE, self.pump)
        loop.watch(self._server.fileno(), _EDGE, self.pump)

    def pump(self) -> None:
        """Move bytes both ways until nothing moves, or it is others' turn."""
        if self._closed:
            return
        try:
            if not self._connected and not self._check_connected():
                return
            for _ in range(_ROUNDS):
                moved = [flow.pump() for flow in self._flows]
                if all(flow.done for flow in self._flows):
                    self.close()
                    return
                if not any(moved):
                    return
            self._loop.pump_again(self)
        except OSError as error:
            _LOG.debug("connection ended: %s", error)
            self._reset()

    def _check_connected(self) -> bool:
        code = self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        try:
            self._server.getpeername()
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                return False  # still connecting: an edge will come
            raise
        self._connected = True
        return True

    def _reset(self) -> None:
        # The other side is told by RST, not by an end of input that looks like a complete answer.
        for end in (self._client, self._server):
            try:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                continue
        self.close()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._siblings.discard(self)
        self._loop.forget_connection(self)
        for end in (self._client, self._server):
            self._loop.forget(end.fileno())
            end.close()
        for flow in self._flows:
            flow.close()
