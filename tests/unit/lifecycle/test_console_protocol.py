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
from lamina.container.console import DetachKeys, Frames, Session, StartFailed
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
    keys = DetachKeys(console.DETACH_KEYS)
    passed = b"".join(keys.feed(data[at : at + step])[0] for at in range(0, len(data), step))
    assert passed == data


def test_detach_sequence_is_found_in_pieces() -> None:
    keys = DetachKeys(b"\x10\x11")
    assert keys.feed(b"a\x10") == (b"a", False)
    assert keys.feed(b"b\x10\x10") == (b"\x10b\x10", False)
    assert keys.feed(b"\x11zzz") == (b"", True)


def test_no_keys_never_detach() -> None:
    assert DetachKeys(b"").feed(b"\x10\x11") == (b"\x10\x11", False)


def test_detach_keys_are_parsed() -> None:
    assert console.parse_detach_keys("ctrl-p,ctrl-q") == console.DETACH_KEYS
    assert console.parse_detach_keys("a,ctrl-]") == b"a\x1d"
    with pytest.raises(LaminaError, match="detach keys"):
        console.parse_detach_keys("ctrl-aa")


def session(tmp_path: Path, frames: bytes) -> tuple[Session, Path]:
    ours, theirs = socket.socketpair()
    theirs.sendall(frames)
    theirs.close()
    out = tmp_path / "out"
    descriptor = os.open(out, os.O_CREAT | os.O_RDWR)
    made = Session(ours, stdin=None, stdout=descriptor, stderr=descriptor)
    return made, out


def test_session_writes_output_and_returns_the_status(tmp_path: Path) -> None:
    frames = console.json_frame(console.STARTED, {"pid": 1}) + console.frame(console.STDOUT, b"a")
    frames += console.frame(console.STDERR, b"b") + console.json_frame(console.EXIT, {"status": 7})
    made, out = session(tmp_path, frames)
    made.await_start()
    assert made.run() == 7
    assert out.read_bytes() == b"ab"
    made._connection.close()
    os.close(made._outputs[console.STDOUT])


def test_session_without_an_end_has_no_status(tmp_path: Path) -> None:
    made, _ = session(tmp_path, console.json_frame(console.STARTED, {"pid": 1}))
    made.await_start()
    assert made.run() is None
    made._connection.close()
    os.close(made._outputs[console.STDOUT])


@pytest.mark.parametrize("frames", [b"", console.failed_frame(LaminaError("no"), 126)])
def test_failed_or_vanished_monitor_is_a_failed_start(tmp_path: Path, frames: bytes) -> None:
    made, _ = session(tmp_path, frames)
    with pytest.raises(StartFailed) as caught:
        made.await_start()
    assert caught.value.status == (126 if frames else 125)
    made._connection.close()
    os.close(made._outputs[console.STDOUT])


def test_nobody_listening_is_none(tmp_path: Path) -> None:
    assert console.connect(str(tmp_path), "attach.sock") is None
