# SPDX-License-Identifier: Apache-2.0
"""The resolver of one container: 127.0.0.11 inside, a thread of its monitor outside.

It answers for the containers in the same networks (`names`) and hands everything else to servers: those
of the host are asked from the host's network namespace, in which they may be on loopback, those of `--dns`
from the container's, as in Docker. It listens on a port
that the kernel chooses, and a rule inside leads port 53 of 127.0.0.11 there, so that a DNS server in the
container can have port 53 of every address. docs/adr/0118 says why there is one for each container.

Rules
- The main thread reads questions by UDP and answers what it knows. What goes on is a short thread's, and
  so is a TCP connection; there are at most so many of them, and each ends by its timeouts.
- A server that does not answer, or cannot, is followed by the next; the last one's failure is SERVFAIL.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import threading
import time

from lamina.container.network import dnswire
from lamina.container.network.dnswire import AAAA, ANY, PTR, SERVFAIL, A, Malformed, read_question
from lamina.container.network.firewall import lead_to_resolver
from lamina.errors import LaminaError
from lamina.start.record import replace
from lamina.system.netns import CLONE_NEWNET, in_namespace, setns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamina.container.network.dnswire import Question
    from lamina.container.network.names import Names

_LOG = logging.getLogger(__name__)

ADDRESS = "127.0.0.11"  # Docker's
SERVERS = 3  # asked for one question at most, as the C library does (resolv.conf(5), MAXNS)
_PATIENCE = 3.0  # seconds for a server's answer
_IDLE = 10.0  # seconds for a client's next bytes by TCP
_FORWARDS = 64  # questions that are with a server at one time
_CONNECTIONS = 16  # clients by TCP at one time
_QUESTIONS = 100  # of one connection
_LARGEST = 65535
_FAMILIES = {A, AAAA, ANY}
_SERVER_FAILED = (dnswire.SERVFAIL, dnswire.REFUSED, dnswire.NOTIMP)


class Resolver:
    """Serves one container until `close`.

    `namespace` is a descriptor of its network namespace, `servers` the addresses of those that are
    asked for what `names` does not know, `inside` its namespace; none: every such question fails.
    """

    def __init__(
        self, names: Names, *, namespace: int, servers: Sequence[str], inside: bool = False
    ) -> None:
        self._names = names
        self._namespace = os.dup(namespace)
        self._inside = inside
        self._servers = tuple(servers)[:SERVERS]
        self._closed = False
        self._forwards = threading.BoundedSemaphore(_FORWARDS)
        self._connections = threading.BoundedSemaphore(_CONNECTIONS)
        try:
            self._udp, self._tcp = in_namespace(namespace, _listen)
        except BaseException:
            os.close(self._namespace)
            raise
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="resolver", daemon=True)
        self._thread.start()

    @property
    def ports(self) -> tuple[int, int]:
        """The ports of UDP and TCP that it listens on."""
        return self._udp.getsockname()[1], self._tcp.getsockname()[1]

    def ask(self, servers: Sequence[str]) -> None:
        """Ask these servers from now on."""
        self._servers = tuple(servers)[:SERVERS]

    def close(self) -> None:
        """Stop; nobody is answered after that. Idempotent."""
        if self._closed:
            return
        self._closed = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        self._udp.close()
        self._tcp.close()
        os.close(self._wake)
        os.close(self._namespace)

    def _run(self) -> None:
        poll = select.poll()
        for descriptor in (self._udp, self._tcp, self._wake):
            poll.register(descriptor, select.POLLIN)
        while not self._closed:
            for descriptor, _ in poll.poll():
                try:
                    if descriptor == self._udp.fileno():
                        self._take_datagram()
                    elif descriptor == self._tcp.fileno():
                        self._take_connection()
                except OSError as error:  # of one client, or no descriptor is left: others go on
                    _LOG.debug("resolver: %s", error)

    def _take_datagram(self) -> None:
        message, client = self._udp.recvfrom(_LARGEST)

        def reply(text: bytes) -> None:
            if not self._closed:
                try:
                    self._udp.sendto(text, client)
                except OSError as error:
                    _LOG.debug("resolver: %s", error)

        self._serve(message, reply, by_tcp=False)

    def _serve(self, message: bytes, reply: Callable[[bytes], None], *, by_tcp: bool) -> None:
        """Answer the message, now or, by UDP, from a thread of its own."""
        try:
            question = read_question(message)
        except Malformed as malformed:
            if malformed.rcode >= 0:
                reply(dnswire.refusal(message, malformed.rcode))
            return
        try:
            known = self._known(question, limit=_LARGEST if by_tcp else dnswire.UDP_LIMIT)
        except LaminaError as error:  # the store cannot be read
            _LOG.debug("resolver: %s", error)
            known = dnswire.answer(question, rcode=SERVFAIL)
        if known is not None:
            reply(known)
        elif by_tcp:
            reply(self._forward(message, question, _by_tcp))
        elif not self._forwards.acquire(blocking=False):
            reply(dnswire.answer(question, rcode=SERVFAIL))
        else:
            self._start(lambda: reply(self._forward(message, question, _by_udp)), self._forwards)

    def _start(self, body: Callable[[], None], slot: threading.BoundedSemaphore) -> None:
        """Run `body` in a thread; `slot`, which is taken, is free after it."""

        def run() -> None:
            try:
                if self._inside:
                    setns(self._namespace, CLONE_NEWNET)  # of this thread alone
                body()
            except OSError as error:
                _LOG.debug("resolver: %s", error)
            finally:
                slot.release()

        try:
            threading.Thread(target=run, name="resolver-worker", daemon=True).start()
        except RuntimeError:  # no thread can be started: the client asks again
            slot.release()

    def _known(self, question: Question, *, limit: int) -> bytes | None:
        """The answer, if the name is a container's."""
        if not question.is_internet:
            return None
        if question.type == PTR:
            name = self._names.name_of(question.name)
            if name is None:
                return None
            try:
                return dnswire.answer(question, [dnswire.write_name(name)], limit=limit)
            except ValueError:
                return None
        found = self._names.find(question.name)
        if found is None:
            return None
        values = list(found.v6 if question.type == AAAA else found.v4)
        if question.type not in _FAMILIES:
            values = []  # the name is there, and has nothing of this type
        if question.type == ANY:  # answered with what a type of its own has (RFC 8482)
            question = _as_type(question, A)
        if len(values) > 1:  # each in turn is the first, which most clients take
            start = question.id % len(values)
            values = values[start:] + values[:start]
        return dnswire.answer(question, values, limit=limit)

    def _forward(
        self, message: bytes, question: Question, exchange: Callable[[str, bytes], bytes | None]
    ) -> bytes:
        """The first useful answer of a server; SERVFAIL if none has one."""
        last = b""
        for server in self._servers:
            asked = os.urandom(2) + message[2:]
            try:
                found = exchange(server, asked)
            except OSError as error:
                _LOG.debug("resolver: %s: %s", server, error)
                continue
            if found is None:
                continue
            last = message[:2] + found[2:]
            if dnswire.rcode_of(last) not in _SERVER_FAILED:
                return last
        return last or dnswire.answer(question, rcode=SERVFAIL)

    def _take_connection(self) -> None:
        client, _ = self._tcp.accept()
        if not self._connections.acquire(blocking=False):
            client.close()
            return
        self._start(lambda: self._talk(client), self._connections)

    def _talk(self, client: socket.socket) -> None:
        with client:
            client.settimeout(_IDLE)
            for _ in range(_QUESTIONS):
                message = _receive_message(client)
                if message is None or self._closed:
                    return
                self._serve(message, lambda text: client.sendall(_framed(text)), by_tcp=True)


def _as_type(question: Question, type: int) -> dnswire.Question:
    return replace(question, type=type)


def _listen() -> tuple[socket.socket, socket.socket]:
    """Sockets in the calling thread's namespace, and the rule that leads to them.

    Raises LaminaError.
    """
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        udp.bind((ADDRESS, 0))
        tcp.bind((ADDRESS, 0))
        tcp.listen(_CONNECTIONS)
        udp.setblocking(False)
        tcp.setblocking(False)
        lead_to_resolver(ADDRESS, udp=udp.getsockname()[1], tcp=tcp.getsockname()[1])
    except BaseException:
        udp.close()
        tcp.close()
        raise
    return udp, tcp


def _family(server: str) -> int:
    return socket.AF_INET6 if ":" in server else socket.AF_INET


def _by_udp(server: str, asked: bytes) -> bytes | None:
    """The server's reply; None if there is none in time. Raises OSError (nobody listens there)."""
    with socket.socket(_family(server), socket.SOCK_DGRAM) as upstream:
        upstream.connect((server, 53))
        upstream.send(asked)
        deadline = time.monotonic() + _PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            upstream.settimeout(left)
            try:
                reply = upstream.recv(_LARGEST)
            except TimeoutError:
                return None
            if dnswire.answers(reply, asked):
                return reply
    return None


def _by_tcp(server: str, asked: bytes) -> bytes | None:
    with socket.create_connection((server, 53), timeout=_PATIENCE) as upstream:
        upstream.sendall(_framed(asked))
        reply = _receive_message(upstream)
    return reply if reply is not None and dnswire.answers(reply, asked) else None


def _framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def _receive_message(connection: socket.socket) -> bytes | None:
    """A message behind its length; None if the connection ends before."""
    head = _receive(connection, 2)
    return None if head is None else _receive(connection, int.from_bytes(head, "big"))


def _receive(connection: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        try:
            piece = connection.recv(size - len(data))
        except OSError as error:
            if error.errno in {errno.ECONNRESET, None}:  # a timeout has no number
                return None
            raise
        if not piece:
            return None
        data += piece
    return data
