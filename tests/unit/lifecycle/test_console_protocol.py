# SPDX-License-Identifier: Apache-2.0
"""Frames, detach keys, and what a client makes of them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.container import console
from lamina.container.console import Frames, Session, StartFailed
from lamina.container.detachkeys import DetachKeys, parse_detach_keys
from lamina.errors import Kind, LaminaError


@given(
    st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=50)), max_size=8), st.integers(1, 9)
)
def test_frames_survive_any_cutting(frames: list[tuple[int, bytes]], step: int) -> None:
    data = b"".join(console.frame(type, payload) for type, payload in frames)
    parser = Frames()
    found = [f for at in range(0, len(data), step) for f in parser.feed(data[at : at + step])]
    assert found == frames


def test_frame_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        list(Frames().feed(b"\x01\xff\xff\xff\xff"))


def test_size_survives_its_frame() -> None:
    [(type, payload)] = Frames().feed(console.size_frame(24, 80))
    assert type == console.RESIZE
    assert console.parse_size(payload) == (24, 80)
    with pytest.raises(ValueError, match="four bytes"):
        console.parse_size(b"x")


def test_failure_survives_its_frame() -> None:
    error = LaminaError("what", kind=Kind.CONFLICT, hint="do")
    [(_, payload)] = Frames().feed(console.failed_frame(error, 127))
    found, status = console.failure_of(payload)
    assert (found.what, found.kind, found.hint, status) == ("what", Kind.CONFLICT, "do", 127)


@given(st.binary(max_size=40), st.integers(1, 5))
def test_typed_bytes_without_the_sequence_pass_unchanged(data: bytes, step: int) -> None:
    data = data.replace(b"\x10", b"") + b"."
    keys = DetachKeys(b"\x10\x11")
    passed = b"".join(keys.feed(data[at : at + step])[0] for at in range(0, len(data), step))
    assert passed == data


def test_detach_sequence_is_found_in_pieces() -> None:
    keys = DetachKeys(b"\x10\x11")
    assert keys.feed(b"a\x10") == (b"a", False)
    assert keys.feed(b"b\x10\x10") == (b"\x10b\x10", False)
    assert keys.feed(b"\x11zzz") == (b"", True)


def test_no_keys_never_detach() -> None:
    assert DetachKeys(b"").feed(b"\x10\x11") == (b"\x10\x11", False)


def test_every_end_of_the_sequence_may_be_its_beginning() -> None:
    keys = DetachKeys(b"aab")
    assert keys.feed(b"aaa") == (b"a", False)
    assert keys.feed(b"b") == (b"", True)


@given(st.text("ab", max_size=12), st.text("ab", min_size=1, max_size=4), st.integers(1, 5))
def test_keys_are_found_wherever_they_end_first(typed: str, keys: str, step: int) -> None:
    data, sequence = typed.encode(), keys.encode()
    finder = DetachKeys(sequence)
    passed, found = b"", False
    for at in range(0, len(data), step):
        if not found:
            piece, found = finder.feed(data[at : at + step])
            passed += piece
    assert found == (sequence in data)
    if found:
        assert passed == data[: data.index(sequence)]
    else:
        assert data.startswith(passed)
        assert len(data) - len(passed) < len(sequence)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a,ctrl-]", b"a\x1d"),
        ("ctrl-@,ctrl-_,ctrl-\\,ctrl-[,ctrl-^", b"\x00\x1f\x1c\x1b\x1e"),
        ("DEL", b"\x7f"),
    ],
)
def test_detach_keys_are_dockers(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-aa", "ctrl-A", "ctrl-", ",", "a,,b", "ab", "é", "ctrl-1"])
def test_other_detach_keys_are_refused(text: str) -> None:
    with pytest.raises(LaminaError, match="Invalid detach keys") as caught:
        parse_detach_keys(text)
    assert caught.value.kind is Kind.USAGE


def session(tmp_path: Path, frames: bytes) -> tuple[Session, Path]:
    ours, theirs = socket.socketpair()
    theirs.sendall(frames)
    theirs.close()
    out = tmp_path / "out"
    descriptor = os.open(out, os.O_CREAT | os.O_RDWR)
    made = Session(ours, stdin=None, stdout=descriptor, stderr=descriptor)
    return made, out


def close_output(made: Session) -> None:
    descriptor = made._outputs[console.STDOUT]
    assert descriptor is not None
    os.close(descriptor)


def test_session_tells_of_output_that_was_left_out(tmp_path: Path) -> None:
    frames = console.json_frame(console.STARTED, {"pid": 1}) + console.frame(console.STDOUT, b"a")
    frames += console.json_frame(console.LOST, {"bytes": 12345}) + console.frame(
        console.STDOUT, b"b"
    )
    frames += console.json_frame(console.EXIT, {"status": 0})
    made, out = session(tmp_path, frames)
    made.await_start()
    assert made.run() == 0
    assert out.read_bytes().startswith(b"a\nlamina: 12345 bytes of output are left out here")
    assert out.read_bytes().endswith(b"\nb")
    made._connection.close()
    close_output(made)


def test_session_without_outputs_ends_with_its_input(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    read_end, write_end = os.pipe()
    os.write(write_end, b"typed")
    os.close(write_end)
    theirs.sendall(console.json_frame(console.STARTED, {"pid": 1}))
    made = Session(ours, stdin=read_end, stdout=None, stderr=None)
    made.await_start()
    assert made.run() is None
    sent = theirs.recv(1000)
    assert list(Frames().feed(sent)) == [(console.STDIN, b"typed"), (console.STDIN, b"")]
    assert not made.is_detached
    os.close(read_end)
    ours.close()
    theirs.close()


def test_session_writes_output_and_returns_the_status(tmp_path: Path) -> None:
    frames = console.json_frame(console.STARTED, {"pid": 1}) + console.frame(console.STDOUT, b"a")
    frames += console.frame(console.STDERR, b"b") + console.json_frame(console.EXIT, {"status": 7})
    made, out = session(tmp_path, frames)
    made.await_start()
    assert made.run() == 7
    assert out.read_bytes() == b"ab"
    made._connection.close()
    close_output(made)


def test_session_without_an_end_has_no_status(tmp_path: Path) -> None:
    made, _ = session(tmp_path, console.json_frame(console.STARTED, {"pid": 1}))
    made.await_start()
    assert made.run() is None
    made._connection.close()
    close_output(made)


@pytest.mark.parametrize("frames", [b"", console.failed_frame(LaminaError("no"), 126)])
def test_failed_or_vanished_monitor_is_a_failed_start(tmp_path: Path, frames: bytes) -> None:
    made, _ = session(tmp_path, frames)
    with pytest.raises(StartFailed) as caught:
        made.await_start()
    assert caught.value.status == (126 if frames else 125)
    made._connection.close()
    close_output(made)


def test_nobody_listening_is_none(tmp_path: Path) -> None:
    assert console.connect(str(tmp_path), "attach.sock") is None
