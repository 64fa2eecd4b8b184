# SPDX-License-Identifier: Apache-2.0
"""The user's terminal in raw mode, given back as it was whatever becomes of this process."""

from __future__ import annotations

import os
import termios
import tty

from lamina.start.lowlevel import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, Self


class RawTerminal:
    """The terminal in raw mode inside a `with`.

    A killed process can restore nothing: a child that waits for that does it then. It leaves a
    terminal alone that somebody else has set meanwhile, as shells do when a program was killed.
    Called in the one thread of a command.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __enter__(self) -> Self:
        self._saved = termios.tcgetattr(self.descriptor)
        tty.setraw(self.descriptor, termios.TCSANOW)
        raw = termios.tcgetattr(self.descriptor)
        ours, self._alive = os.pipe2(os.O_CLOEXEC)
        self._guard = os.fork()
        if self._guard == 0:
            os.close(self._alive)
            _guard(ours, self.descriptor, self._saved, raw)
        os.close(ours)
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            termios.tcsetattr(self.descriptor, termios.TCSADRAIN, self._saved)
        except termios.error:  # the terminal has gone
            pass
        finally:
            os.close(self._alive)  # it finds the terminal restored, and ends
            os.waitpid(self._guard, 0)


def _guard(alive: int, descriptor: int, saved: list[Any], raw: list[Any]) -> NoReturn:
    """In the child: wait until the other end of `alive` is closed, restore the terminal, end."""
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()  # no key and no hang-up is for us
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH):
            signal.signal(number, signal.SIG_DFL)
        terminal = os.dup2(descriptor, 0)
        pipe = os.dup2(alive, 1)
        os.closerange(2, os.sysconf("SC_OPEN_MAX"))
        os.read(pipe, 1)
        if termios.tcgetattr(terminal) == raw:
            termios.tcsetattr(terminal, termios.TCSANOW, saved)
    finally:
        os._exit(0)
