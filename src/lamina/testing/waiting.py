# SPDX-License-Identifier: Apache-2.0
"""Waiting, for tests: until something is so, and never for a while that should be long enough."""

from __future__ import annotations

import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import Popen
    from typing import Any, TypeVar

    T = TypeVar("T")


def wait_until(
    condition: Callable[[], T],
    what: str = "what the test waits for",
    *,
    seconds: float = 60,
    pause: float = 0.01,
    process: Popen[Any] | None = None,
) -> T:
    """What the condition gives, as soon as it is true.

    Fails if that does not happen within `seconds`, or when the `process` that should bring it about
    has ended. `pause` is the time between two questions.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process is None or process.poll() is None, f"the process ended before this: {what}"
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(pause)
    return found


def wait_for_server(port: int, process: Popen[Any]) -> None:
    """Return when the process, a server, accepts connections at a port of 127.0.0.1."""

    def accepts() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
        return True

    wait_until(accepts, f"a server at port {port}", process=process)


def let_pass(seconds: float) -> None:
    """Let time pass, where a moment is what is tested: that of a kill, or a slow reader's."""
    time.sleep(seconds)
