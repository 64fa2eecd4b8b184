# SPDX-License-Identifier: Apache-2.0
"""Stream sockets between lamina's own processes, and waiting for several descriptors.

`Socket` is what the C module has, with the few methods of `socket.socket` that are used here.
"""

from __future__ import annotations

import select
import sys

from lamina.start.socketmodule import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    # the same class for the type checker
    from socket import socket as Socket  # noqa: N812
    from typing import Protocol

    class HasDescriptor(Protocol):
        def fileno(self) -> int: ...

    Source = int | HasDescriptor
else:

    class Socket(socket.socket):
        """As `socket.socket` of the standard library: closed at the end of a `with` block, never inherited."""

        __slots__ = ()

        def __enter__(self):  # noqa: ANN204
            return self

        def __exit__(self, *exc):  # noqa: ANN002, ANN204
            self.close()

        def accept(self):  # noqa: ANN201
            """(the connection, the address of the other side)."""
            descriptor, address = self._accept()
            return Socket(fileno=descriptor), address


__all__ = [
    "READ",
    "WRITE",
    "Poll",
    "Socket",
    "listen",
    "packet_pair",
    "pair",
    "receive_descriptors",
    "send_descriptors",
    "stream",
]

READ, WRITE = 1, 2  # of Poll
_INT = 4  # bytes of a descriptor
_HEADER = 32  # bytes, at least, of an ancillary message's header with padding


def stream() -> Socket:
    """A new Unix stream socket."""
    return Socket(socket.AF_UNIX, socket.SOCK_STREAM)


def pair() -> tuple[Socket, Socket]:
    """Two connected stream sockets. Neither is inherited."""
    return _pair(socket.SOCK_STREAM)


def packet_pair() -> tuple[Socket, Socket]:
    """The same that keep the bounds of what is sent at once."""
    return _pair(socket.SOCK_SEQPACKET)


def _pair(kind: int) -> tuple[Socket, Socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    return Socket(fileno=ours.detach()), Socket(fileno=theirs.detach())


def listen(path: str, *, backlog: int) -> Socket:
    """A socket that listens at `path`, which must not exist."""
    listener = stream()
    try:
        listener.bind(path)
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def send_descriptors(connection: Socket, data: bytes, descriptors: Sequence[int]) -> None:
    """Send bytes with copies of the descriptors."""
    packed = b"".join(number.to_bytes(_INT, sys.byteorder) for number in descriptors)
    connection.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)])


def receive_descriptors(connection: Socket) -> list[int]:
    """The descriptors that come with the next bytes (at most one), which programs do not inherit."""
    _, ancillary, _, _ = connection.recvmsg(4096, _INT + _HEADER, socket.MSG_CMSG_CLOEXEC)
    found: list[int] = []
    for level, kind, packed in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            whole = packed[: len(packed) - len(packed) % _INT]
            found += memoryview(whole).cast("i").tolist()
    return found


class Poll:
    """Which of several descriptors can be read or written.

    A descriptor whose other side has gone counts as ready for both: the call that is made then
    tells what happened.
    """

    def __init__(self) -> None:
        self._poll = select.poll()
        self._watched: dict[int, tuple[Source, int]] = {}

    def watch(self, source: Source, events: int) -> None:
        """Watch for `events` (READ | WRITE) of `source` from now on; 0: not any more. Idempotent."""
        number = _number(source)
        known = self._watched.get(number)
        if not events:
            if known is not None:
                del self._watched[number]
                self._poll.unregister(number)
        elif known is None or known[1] != events or known[0] is not source:
            mask = (select.POLLIN if events & READ else 0) | (
                select.POLLOUT if events & WRITE else 0
            )
            self._poll.register(number, mask)
            self._watched[number] = (source, events)

    def wait(self, seconds: float | None = None) -> list[tuple[Source, int]]:
        """Wait until something is ready, at most so long: (source, READ | WRITE) of each."""
        found = []
        # rounded up: who waits for a moment should not wake before it
        limit = None if seconds is None else max(0, int(seconds * 1000) + 1)
        for number, mask in self._poll.poll(limit):
            ready = (READ if mask & ~select.POLLOUT else 0) | (
                WRITE if mask & ~select.POLLIN else 0
            )
            source, wanted = self._watched[number]
            found.append((source, ready & wanted))
        return found


def _number(source: Source) -> int:
    return source if isinstance(source, int) else source.fileno()
