# SPDX-License-Identifier: Apache-2.0
"""Sockets on the C module, and waiting for several descriptors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.start.libc import call, get_errno
from lamina.system.sockets import (
    READ,
    WRITE,
    Poll,
    listen,
    packet_pair,
    pair,
    receive_descriptors,
    send_descriptors,
    stream,
)


def test_a_pair_talks_and_is_closed_by_its_block() -> None:
    ours, theirs = pair()
    with ours, theirs:
        assert not os.get_inheritable(ours.fileno())
        ours.sendall(b"hello")
        assert theirs.recv(16) == b"hello"
        ours.close()
        assert theirs.recv(16) == b""
    assert theirs.fileno() == -1


def test_packets_keep_their_bounds() -> None:
    ours, theirs = packet_pair()
    with ours, theirs:
        ours.send(b"one")
        ours.send(b"two")
        assert theirs.recv(16) == b"one"


def test_a_listener_accepts(tmp_path: Path) -> None:
    with listen(str(tmp_path / "s"), backlog=1) as listener, stream() as client:
        client.connect(str(tmp_path / "s"))
        with listener.accept()[0] as connection:
            client.sendall(b"x")
            assert connection.recv(1) == b"x"


def test_descriptors_arrive_with_bytes_and_are_not_inherited(tmp_path: Path) -> None:
    ours, theirs = pair()
    with ours, theirs, (tmp_path / "file").open("wb") as file:
        send_descriptors(ours, b"!", [file.fileno()])
        (found,) = receive_descriptors(theirs)
        try:
            assert os.fstat(found).st_ino == os.fstat(file.fileno()).st_ino
            assert not os.get_inheritable(found)
        finally:
            os.close(found)
        ours.sendall(b"nothing")
        assert receive_descriptors(theirs) == []


def test_poll_tells_what_can_be_done() -> None:
    ours, theirs = pair()
    with ours, theirs:
        poll = Poll()
        poll.watch(ours, READ | WRITE)
        assert poll.wait() == [(ours, WRITE)]
        theirs.sendall(b"x")
        assert poll.wait() == [(ours, READ | WRITE)]
        poll.watch(ours, READ)
        assert poll.wait() == [(ours, READ)]
        poll.watch(ours, 0)
        poll.watch(ours, 0)
        poll.watch(theirs, WRITE)
        assert poll.wait() == [(theirs, WRITE)]


@pytest.mark.parametrize("events", [READ, WRITE])
def test_what_has_gone_is_ready_for_what_was_asked(events: int) -> None:
    ours, theirs = pair()
    with ours:
        theirs.close()
        poll = Poll()
        poll.watch(ours, events)
        assert poll.wait() == [(ours, events)]


def test_a_regular_file_is_always_ready(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        poll = Poll()
        poll.watch(file.fileno(), READ)
        assert poll.wait() == [(file.fileno(), READ)]


def test_the_c_library_answers_and_says_why_not() -> None:
    assert call("getpid") == os.getpid()
    assert call("open", b"/nowhere/at/all", 0) == -1
    assert OSError(get_errno(), "").errno == 2
    assert call("syscall", 999_999) == -1
    assert get_errno() == 38  # ENOSYS
