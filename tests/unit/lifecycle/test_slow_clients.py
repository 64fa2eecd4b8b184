# SPDX-License-Identifier: Apache-2.0
"""What a monitor keeps for a client that does not read, and what it leaves out."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from lamina.container import console
from lamina.container.console import Frames
from lamina.container.monitor import BACKLOG, Client, greet
from lamina.system.sockets import Socket

BLOCK = b"x" * 65536


@pytest.fixture
def joined() -> Iterator[tuple[Client, socket.socket]]:
    """(the monitor's end, the client's)."""
    ours, theirs = socket.socketpair()
    client = Client(Socket(fileno=ours.detach()))
    yield client, theirs
    client.connection.close()
    theirs.close()


def read_all(client: Client, theirs: socket.socket, begun: bytes = b"") -> list[tuple[int, bytes]]:
    """Every frame that the client gets once it reads, which it has begun to do."""
    frames = Frames()
    found = list(frames.feed(begun))
    theirs.setblocking(False)
    while True:
        client.flush()
        try:
            found += frames.feed(theirs.recv(1 << 20))
        except BlockingIOError:
            return found


def test_slow_client_costs_no_more_than_the_backlog(joined: tuple[Client, socket.socket]) -> None:
    client, theirs = joined
    for _ in range(100):
        client.deliver(console.STDOUT, BLOCK)
    assert len(client.outgoing) <= BACKLOG + 2 * len(BLOCK)
    frames = read_all(client, theirs)
    client.deliver(console.STDERR, b"again")
    frames += read_all(client, theirs)
    kept = [payload for type, payload in frames if type == console.STDOUT]
    [lost] = [json.loads(payload)["bytes"] for type, payload in frames if type == console.LOST]
    assert sum(map(len, kept)) + lost == 100 * len(BLOCK)
    assert [type for type, _ in frames[-2:]] == [console.LOST, console.STDERR]


def test_nothing_is_resumed_in_the_middle_of_a_gap(joined: tuple[Client, socket.socket]) -> None:
    """Else a client at the edge would get a notice with each block."""
    client, theirs = joined
    while len(client.outgoing) <= BACKLOG:
        client.deliver(console.STDOUT, BLOCK)
    client.deliver(console.STDOUT, b"gone")
    begun = theirs.recv(100_000)
    client.flush()
    assert client.outgoing
    client.deliver(console.STDOUT, b"gone too")
    frames = read_all(client, theirs, begun)
    assert all(payload == BLOCK for _, payload in frames)
    client.tell_of_loss()
    assert read_all(client, theirs) == [(console.LOST, b'{"bytes": 12}')]


def test_client_that_holds_loses_nothing(joined: tuple[Client, socket.socket]) -> None:
    client, theirs = joined
    greet(client, b'{"mode": "attach", "stdin": false, "holds": true}')
    for _ in range(40):
        client.deliver(console.STDOUT, BLOCK)
    frames = read_all(client, theirs)
    assert len(frames) == 40
    assert {type for type, _ in frames} == {console.STDOUT}
