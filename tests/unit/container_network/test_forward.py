# SPDX-License-Identifier: Apache-2.0
"""The forwarder on the loopback interface: whole streams, half-closes, resets, datagrams."""

from __future__ import annotations

import os
import select
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from lamina.container.network import forward
from lamina.container.network.forward import Forwarder

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = "127.0.0.1"


@pytest.fixture
def forwarder() -> Iterator[Forwarder]:
    """A forwarder that must give back every descriptor."""
    before = len(os.listdir("/proc/self/fd"))
    forwarder = Forwarder()
    yield forwarder
    forwarder.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server((HERE, 0)) as server:
        server.settimeout(10)
        yield server


def bound(kind: int = socket.SOCK_STREAM, ip: str = HERE) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    made.bind((ip, 0))
    if kind == socket.SOCK_STREAM:
        made.listen()
    return made


def published(forwarder: Forwarder, server: socket.socket) -> tuple[str, int]:
    listener = bound()
    address: tuple[str, int] = listener.getsockname()
    forwarder.serve([listener], ip=HERE, port=server.getsockname()[1])
    return address


def connect(address: tuple[str, int]) -> socket.socket:
    client = socket.create_connection(address, 10)
    client.settimeout(10)
    return client


def receive_all(end: socket.socket) -> bytes:
    return b"".join(iter(lambda: end.recv(65536), b""))


def test_stream_arrives_whole_with_a_slow_reader(
    forwarder: Forwarder, server: socket.socket
) -> None:
    sent = os.urandom(4 << 20)
    with connect(published(forwarder, server)) as client:

        def send() -> None:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)

        inside, _ = server.accept()
        sender = threading.Thread(target=send)
        sender.start()
        with inside:
            first = inside.recv(10)  # and then nothing, until the sender is stuck
            select.select([], [], [], 0.1)
            received = first + receive_all(inside)
        sender.join()

    assert received == sent


def test_half_close_lets_the_answer_through(forwarder: Forwarder, server: socket.socket) -> None:
    with connect(published(forwarder, server)) as client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        inside, _ = server.accept()
        with inside:
            assert receive_all(inside) == b"question"
            inside.sendall(b"answer")
        assert receive_all(client) == b"answer"


def test_server_that_speaks_first_is_heard(forwarder: Forwarder, server: socket.socket) -> None:
    with connect(published(forwarder, server)) as client:
        inside, _ = server.accept()
        with inside:
            inside.sendall(b"220 ready")
            assert client.recv(100) == b"220 ready"


def test_refused_connection_is_a_reset_not_an_empty_answer(forwarder: Forwarder) -> None:
    with socket.create_server((HERE, 0)) as gone:
        port = gone.getsockname()[1]
    listener = bound()
    forwarder.serve([listener], ip=HERE, port=port)

    address = listener.getsockname()  # the reset may be seen as early as in connect

    with pytest.raises(ConnectionResetError), connect(address) as client:
        client.recv(1)


def test_reset_of_the_server_reaches_the_client(
    forwarder: Forwarder, server: socket.socket
) -> None:
    with connect(published(forwarder, server)) as client:
        inside, _ = server.accept()
        inside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        inside.close()

        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_client_that_goes_away_closes_the_servers_side(
    forwarder: Forwarder, server: socket.socket
) -> None:
    client = connect(published(forwarder, server))
    inside, _ = server.accept()
    client.close()

    with inside:
        assert inside.recv(1) == b""


def test_fast_connection_does_not_starve_another(
    forwarder: Forwarder, server: socket.socket
) -> None:
    address = published(forwarder, server)
    stop = threading.Event()

    def flood(end: socket.socket) -> None:
        while not stop.is_set():
            end.sendall(bytes(65536))

    def drain(end: socket.socket) -> None:
        while end.recv(65536):
            pass

    with connect(address) as fast:
        fast_inside, _ = server.accept()
        threads = [
            threading.Thread(target=flood, args=(fast,)),
            threading.Thread(target=drain, args=(fast_inside,)),
        ]
        for thread in threads:
            thread.start()
        with connect(address) as client:
            inside, _ = server.accept()
            with inside:
                client.sendall(b"hello")
                heard = inside.recv(5)
        stop.set()
        threads[0].join()
        fast.shutdown(socket.SHUT_WR)
        threads[1].join()
        fast_inside.close()

    assert heard == b"hello"


def test_many_connections_at_once_are_served(forwarder: Forwarder, server: socket.socket) -> None:
    address = published(forwarder, server)
    clients = [connect(address) for _ in range(50)]
    insides = [server.accept()[0] for _ in range(50)]
    for n, inside in enumerate(insides):
        inside.sendall(bytes([n]))
        inside.close()

    assert sorted(receive_all(client)[0] for client in clients) == list(range(50))
    for client in clients:
        client.close()


def test_stop_closes_the_port_and_its_connections(
    forwarder: Forwarder, server: socket.socket
) -> None:
    listener = bound()
    address = listener.getsockname()
    forwarder.serve([listener], ip=HERE, port=server.getsockname()[1])
    client = connect(address)
    inside, _ = server.accept()

    forwarder.stop([listener])

    with client, inside:
        assert client.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            connect(address)


def test_running_out_of_descriptors_pauses_accepting(
    forwarder: Forwarder, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = published(forwarder, server)
    calls = []

    def refuse(*arguments: object) -> None:
        calls.append(arguments)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(forward, "_PAUSE", 0.05)
    with monkeypatch.context() as broken:
        broken.setattr(forward, "_Connection", refuse)
        with connect(address) as lost:
            assert lost.recv(1) == b""
    assert len(calls) == 1

    with connect(address) as client:
        inside, _ = server.accept()
        with inside:
            inside.sendall(b"back")
            assert client.recv(10) == b"back"


def test_datagrams_go_and_come_back_to_each_client(forwarder: Forwarder) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HERE, 0))
        server.settimeout(10)
        port = bound(socket.SOCK_DGRAM)
        address = port.getsockname()
        forwarder.serve([port], ip=HERE, port=server.getsockname()[1])
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
        for n, client in enumerate(clients):
            client.settimeout(10)
            client.sendto(bytes([n]), address)
        for _ in clients:
            data, source = server.recvfrom(10)
            server.sendto(b"re:" + data, source)

        answers = [client.recv(10) for client in clients]
        for client in clients:
            client.close()

    assert answers == [b"re:\0", b"re:\1", b"re:\2"]


def test_reply_comes_from_the_address_that_was_asked(forwarder: Forwarder) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind((HERE, 0))
        server.settimeout(10)
        client.settimeout(10)
        port = bound(socket.SOCK_DGRAM, "0.0.0.0")
        forwarder.serve([port], ip=HERE, port=server.getsockname()[1])
        asked = ("127.0.0.7", port.getsockname()[1])
        client.sendto(b"?", asked)
        _, source = server.recvfrom(10)
        server.sendto(b"!", source)

        assert client.recvfrom(10) == (b"!", asked)


def test_idle_udp_clients_are_forgotten(
    forwarder: Forwarder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "_UDP_IDLE", 0.0)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind((HERE, 0))
        server.settimeout(10)
        port = bound(socket.SOCK_DGRAM)
        forwarder.serve([port], ip=HERE, port=server.getsockname()[1])
        sources = set()
        for _ in range(2):
            client.sendto(b"?", port.getsockname())
            sources.add(server.recvfrom(10)[1])

    assert len(sources) == 2


def test_more_udp_clients_than_the_limit_push_out_the_longest_idle(
    forwarder: Forwarder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "_MAX_CLIENTS", 2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((HERE, 0))
        server.settimeout(10)
        port = bound(socket.SOCK_DGRAM)
        forwarder.serve([port], ip=HERE, port=server.getsockname()[1])
        before = len(os.listdir("/proc/self/fd"))
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(5)]
        for client in clients:
            client.sendto(b"?", port.getsockname())
            server.recvfrom(10)

        upstream = len(os.listdir("/proc/self/fd")) - before - len(clients)
        for client in clients:
            client.close()

    assert upstream == 2


def test_close_without_use_and_twice_is_fine() -> None:
    forwarder = Forwarder()
    forwarder.close()
    forwarder.close()
    unused = bound()
    forwarder.stop([unused])
    assert unused.fileno() == -1
