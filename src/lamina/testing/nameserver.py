# SPDX-License-Identifier: Apache-2.0
"""A name server for tests of the resolver: in a thread, on UDP and TCP, with answers that a test chooses."""

from __future__ import annotations

import select
import socket
import struct
import threading
from contextlib import contextmanager

from lamina.container.network import dnswire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def answering(ip: str) -> Callable[[bytes], bytes | None]:
    """Every name has this address."""

    def reply(message: bytes) -> bytes:
        question = dnswire.read_question(message)
        values = [socket.inet_aton(ip)] if question.type == dnswire.A else []
        return dnswire.answer(question, values)

    return reply


@contextmanager
def name_server(address: str, reply: Callable[[bytes], bytes | None]) -> Iterator[list[str]]:
    """Serve port 53 of `address` in the calling thread's namespace; the names that were asked for."""
    asked: list[str] = []
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    done, wake = socket.socketpair()
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    udp.bind((address, 53))
    tcp.bind((address, 53))
    tcp.listen()

    def answer(message: bytes) -> bytes | None:
        asked.append(dnswire.read_question(message).name)
        return reply(message)

    def serve() -> None:
        while True:
            ready, _, _ = select.select([udp, tcp, wake], [], [])
            if wake in ready:
                return
            if udp in ready:
                message, client = udp.recvfrom(4096)
                text = answer(message)
                if text is not None:
                    udp.sendto(text, client)
            if tcp in ready:
                connection, _ = tcp.accept()
                with connection:
                    (size,) = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))
                    text = answer(connection.recv(size, socket.MSG_WAITALL))
                    if text is not None:
                        connection.sendall(struct.pack("!H", len(text)) + text)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        done.send(b"x")
        thread.join()
        for each in (udp, tcp, done, wake):
            each.close()
