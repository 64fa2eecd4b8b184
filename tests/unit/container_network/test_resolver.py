# SPDX-License-Identifier: Apache-2.0
"""A resolver between a client and name servers, in a network namespace that stands for a container's."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, cast

import pytest

from lamina.container.network import dnswire
from lamina.container.network.dnswire import AAAA, HEADER, PTR, A
from lamina.container.network.names import Answer
from lamina.container.network.resolver import ADDRESS, Resolver
from lamina.testing.nameserver import answering, name_server
from lamina.testing.network import fresh_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.container.network.names import Names

pytestmark = [pytest.mark.root, pytest.mark.tool("nft", "ip")]

MANY = tuple(bytes([10, 0, n, 1]) for n in range(60))


class Known:
    """Names of a test's own."""

    def find(self, name: str) -> Answer | None:
        found = {
            "web": Answer((b"\x0a\0\0\1",), (b"\xfd" + bytes(14) + b"\1",)),
            "many": Answer(MANY),
        }
        return found.get(name)

    def name_of(self, pointer: str) -> str | None:
        return "web.net" if pointer == "1.0.0.10.in-addr.arpa" else None


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    with fresh_host():
        namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        made = Resolver(cast("Names", Known()), namespace=namespace, servers=["127.0.0.1"])
        try:
            yield made
        finally:
            made.close()
            made.close()
            os.close(namespace)


def query(name: str, type: int = A, *, id: int = 7) -> bytes:
    return HEADER.pack(id, 0x0100, 1, 0, 0, 0) + dnswire.write_name(name) + bytes((0, type, 0, 1))


def by_udp(message: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        client.connect((ADDRESS, 53))
        client.send(message)
        return client.recv(65535)


def by_tcp(*messages: bytes) -> list[bytes]:
    with socket.create_connection((ADDRESS, 53), timeout=10) as client:
        replies = []
        for message in messages:
            client.sendall(len(message).to_bytes(2, "big") + message)
            size = int.from_bytes(client.recv(2, socket.MSG_WAITALL), "big")
            replies.append(client.recv(size, socket.MSG_WAITALL))
        return replies


def count(reply: bytes) -> int:
    return int(HEADER.unpack_from(reply)[3])


def rcode(reply: bytes) -> int:
    return dnswire.rcode_of(reply)


def test_names_are_answered_at_port_53_by_udp_and_tcp(resolver: Resolver) -> None:
    for reply in (by_udp(query("WEB")), *by_tcp(query("web"), query("Web"))):
        assert reply[:2] == b"\0\7"
        assert reply.endswith(b"\x0a\0\0\1")
        assert (count(reply), rcode(reply)) == (1, 0)
    assert by_udp(query("web", AAAA)).endswith(bytes(14) + b"\1")
    assert by_udp(query("1.0.0.10.in-addr.arpa", PTR)).endswith(b"\3web\3net\0")
    mx = by_udp(query("web", 15))
    assert (count(mx), rcode(mx)) == (0, 0)  # the name is there, and has none


def test_an_answer_too_long_for_udp_says_so_and_comes_by_tcp(resolver: Resolver) -> None:
    short = by_udp(query("many"))
    assert len(short) <= 512
    assert short[2] & 2  # TC
    (whole,) = by_tcp(query("many"))
    assert count(whole) == len(MANY)
    first = {by_udp(query("many", id=n))[HEADER.size + 10 + 12 :][:4] for n in range(20)}
    assert len(first) > 5  # they take turns


def test_other_names_are_the_servers(resolver: Resolver) -> None:
    with name_server("127.0.0.1", answering("203.0.113.9")) as asked:
        for reply in (by_udp(query("example")), *by_tcp(query("example"))):
            assert reply[:2] == b"\0\7"
            assert reply.endswith(bytes((203, 0, 113, 9)))
    assert asked == ["example", "example"]


def test_the_next_server_is_asked_where_one_fails(resolver: Resolver) -> None:
    def failing(message: bytes) -> bytes:
        return dnswire.answer(dnswire.read_question(message), rcode=dnswire.SERVFAIL)

    resolver.ask(["127.0.0.5", "127.0.0.6", "127.0.0.1"])  # nobody is at the first
    with (
        name_server("127.0.0.6", failing) as failed,
        name_server("127.0.0.1", answering("203.0.113.9")),
    ):
        assert by_udp(query("example")).endswith(bytes((203, 0, 113, 9)))
    assert failed == ["example"]


def test_an_answer_to_another_question_is_not_taken(resolver: Resolver) -> None:
    def lying(message: bytes) -> bytes:
        return dnswire.answer(
            dnswire.read_question(query("other", id=int.from_bytes(message[:2], "big"))),
            [b"\1\2\3\4"],
        )

    resolver.ask(["127.0.0.6", "127.0.0.1"])
    with name_server("127.0.0.6", lying), name_server("127.0.0.1", answering("203.0.113.9")):
        assert by_udp(query("example")).endswith(bytes((203, 0, 113, 9)))


def test_without_servers_it_fails_at_once(resolver: Resolver) -> None:
    resolver.ask([])
    assert rcode(by_udp(query("example"))) == dnswire.SERVFAIL
    assert [rcode(reply) for reply in by_tcp(query("example"))] == [dnswire.SERVFAIL]


def test_hostile_bytes_do_not_stop_it(resolver: Resolver) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for data in (b"", b"\0", bytes(11), b"\0\1\x81\x80" + bytes(8), b"\xff" * 600):
            client.sendto(data, (ADDRESS, 53))
    connections = [socket.create_connection((ADDRESS, 53)) for _ in range(40)]  # that say nothing
    for data in (b"\xff\xff", b"\0\2ab", b"\0\0"):
        with socket.create_connection((ADDRESS, 53)) as client:
            client.sendall(data)
    assert rcode(by_udp(bytes(12))) == dnswire.FORMERR
    assert count(by_udp(query("web"))) == 1
    for each in connections:
        each.close()
    assert count(by_tcp_when_there_is_room()) == 1


def by_tcp_when_there_is_room() -> bytes:
    from lamina.testing.waiting import wait_until

    found: list[bytes] = []

    def attempt() -> bool:
        try:
            found[:] = by_tcp(query("web"))  # nothing, if there was no room
        except OSError:
            return False
        return bool(found and found[0])

    wait_until(attempt)
    return found[0]
