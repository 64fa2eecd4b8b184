# SPDX-License-Identifier: Apache-2.0
"""A terminal with a command on its other side, for tests that type."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time

from lamina.testing.waiting import wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol, Self

    class Command(Protocol):
        """`lamina` as somebody runs it."""

        @property
        def env(self) -> Mapping[str, str]: ...
        def argv(self, *words: str) -> list[str]: ...


class Terminal:
    """A pseudo-terminal, in a `with` block; what runs there still is killed at its end."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.text = b""
        self.resize(24, 80)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def settings(self) -> list[Any]:
        """How it is set: raw or not."""
        return termios.tcgetattr(self.slave)

    def run(self, lamina: Command, *arguments: str) -> None:
        """Start the command on it."""
        self.process = subprocess.Popen(
            lamina.argv(*arguments),
            env=lamina.env,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
        )

    def await_raw(self) -> None:
        """Wait until the command has it in raw mode: what is typed before is edited by the kernel."""
        wait_until(lambda: not self.settings[3] & termios.ICANON, seconds=20)

    def expect(self, wanted: bytes, *, seconds: float = 20) -> None:
        """Read until `wanted` appears; what came before it is dropped."""
        end = time.monotonic() + seconds
        while wanted not in self.text:
            assert time.monotonic() < end, f"{wanted!r} never came: {self.text!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.text += os.read(self.master, 4096)
        self.text = self.text.partition(wanted)[2]

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def status(self) -> int:
        """Wait for the command; its exit status."""
        assert self.process is not None
        return self.process.wait(timeout=30)
