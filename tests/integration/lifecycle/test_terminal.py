# SPDX-License-Identifier: Apache-2.0
"""`-t`: a real terminal in the container, sized, resized, detached from, and given back."""

from __future__ import annotations

import signal
import termios
from collections.abc import Iterator

import pytest

from lamina.testing.busybox import Lamina
from lamina.testing.terminal import Terminal


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with Terminal() as made:
        yield made


def test_interactive_shell_works_and_its_status_is_ours(lamina: Lamina, terminal: Terminal) -> None:
    terminal.run(lamina, "run", "-it", "--rm", "bb", "sh")
    terminal.expect(b"# ")
    terminal.type(b"tty; echo $TERM; exit 23\n")
    terminal.expect(b"/dev/pts/0")
    terminal.expect(b"xterm")
    assert terminal.status() == 23


def test_size_is_given_at_the_start_and_follows(lamina: Lamina, terminal: Terminal) -> None:
    terminal.resize(31, 97)
    script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done"
    terminal.run(lamina, "run", "-it", "--rm", "bb", "sh", "-c", script)
    terminal.expect(b"31 97")
    terminal.resize(40, 120)
    assert terminal.process is not None
    terminal.process.send_signal(signal.SIGWINCH)  # what the kernel sends a foreground process
    terminal.expect(b"40 120")
    terminal.type(b"\x03")
    assert terminal.status() == 130


def test_interrupt_key_reaches_the_container(lamina: Lamina, terminal: Terminal) -> None:
    terminal.run(lamina, "run", "-it", "--rm", "bb", "sh", "-c", "trap 'exit 44' INT; echo go; cat")
    terminal.expect(b"go")
    terminal.type(b"\x03")
    assert terminal.status() == 44


def test_terminal_is_as_before_afterwards(lamina: Lamina, terminal: Terminal) -> None:
    before = termios.tcgetattr(terminal.slave)
    terminal.run(lamina, "run", "-it", "--rm", "bb", "sh")
    terminal.expect(b"# ")
    assert termios.tcgetattr(terminal.slave) != before
    terminal.type(b"exit\n")
    terminal.status()
    assert termios.tcgetattr(terminal.slave) == before


def test_detach_keys_leave_it_running(lamina: Lamina, terminal: Terminal) -> None:
    before = termios.tcgetattr(terminal.slave)
    terminal.run(lamina, "run", "-it", "--name", "dd", "bb", "sh")
    terminal.expect(b"# ")
    terminal.type(b"\x10\x11")
    assert terminal.status() == 0
    assert lamina.inspect("dd")["State"]["Running"]
    assert termios.tcgetattr(terminal.slave) == before


def test_start_attaches_again(lamina: Lamina, terminal: Terminal) -> None:
    terminal.run(lamina, "run", "-it", "--name", "aa", "bb", "sh")
    terminal.expect(b"# ")
    terminal.type(b"exit 3\n")
    assert terminal.status() == 3
    terminal.run(lamina, "start", "-ai", "aa")
    terminal.expect(b"# ")
    terminal.type(b"exit 4\n")
    assert terminal.status() == 4


def test_output_on_a_terminal_is_logged(lamina: Lamina) -> None:
    lamina("run", "-d", "-t", "--name", "tt", "bb", "sh", "-c", "tty; echo x >&2")
    lamina("wait", "tt")
    assert lamina("logs", "tt").stdout.replace("\n", "|") == "/dev/pts/0|x|"


def test_interactive_terminal_needs_one_here(lamina: Lamina) -> None:
    assert "stdin is not a terminal" in lamina("run", "-it", "bb", "sh", status=125).stderr
    assert lamina.out("ps", "-aq") == ""


def test_exec_with_a_terminal(lamina: Lamina, terminal: Terminal) -> None:
    lamina("run", "-d", "--name", "ex", "bb", "sleep", "600")
    before = termios.tcgetattr(terminal.slave)
    terminal.run(lamina, "exec", "-it", "ex", "sh")
    terminal.expect(b"# ")
    terminal.type(b"tty; exit 9\n")
    terminal.expect(b"/dev/")
    assert terminal.status() == 9
    assert termios.tcgetattr(terminal.slave) == before
