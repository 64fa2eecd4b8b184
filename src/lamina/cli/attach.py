# SPDX-License-Identifier: Apache-2.0
"""Our standard streams joined to a container's: shared by `run`, `start -a` and `exec`."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.lowlevel import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TextIO

    from lamina.app.containers import Container
    from lamina.cli.context import Context


def check_terminal(context: Context, *, terminal: bool, stdin: bool) -> None:
    """A terminal in the container needs one here. Raises LaminaError of kind USAGE."""
    if terminal and stdin and not context.stdin.isatty():
        raise LaminaError(
            "cannot attach stdin to a TTY-enabled container because stdin is not a terminal",
            kind=Kind.USAGE,
            hint="leave out -t, or run it from a terminal",
        )


def detach_keys(text: str) -> bytes:
    """The bytes of `--detach-keys`; Docker's default if it is not given."""
    from lamina.container.console import DETACH_KEYS, parse_detach_keys

    return parse_detach_keys(text) if text else DETACH_KEYS


def run_attached(
    container: Container,
    context: Context,
    *,
    keys: bytes,
    sig_proxy: bool,
    stdin: bool | None = None,
) -> int:
    """Start the container with our streams and stay until it ends; its exit status.

    The status is 0 after the detach keys. `stdin` None: as the container was created.
    """
    from lamina.container.console import Session, StartFailed, window_size

    config = container.config
    with_stdin = config.stdin_open if stdin is None else stdin
    terminal = config.process.terminal
    context.stdout.flush()
    context.stderr.flush()
    outputs = context.stdout.fileno(), context.stderr.fileno()
    size = (window_size(outputs[0]) or window_size(context.stdin.fileno())) if terminal else None
    with container.start(attach=True, stdin=with_stdin, size=size) as connection:
        session = Session(
            connection,
            stdin=context.stdin.fileno() if with_stdin else None,
            stdout=outputs[0],
            stderr=outputs[1],
            terminal=terminal,
            detach_keys=keys,
            on_signal=_proxy(container, context) if sig_proxy and not terminal else None,
        )
        try:
            session.await_start()
        except StartFailed as failure:
            report(failure, context)
            return failure.status
        status = session.run()
    if status is not None:
        return status
    if session.is_detached:
        return 0
    return container.wait()


def report(failure: Exception, context: Context) -> None:
    """Print why a container did not start."""
    from lamina.cli.report import report as report_error
    from lamina.container.console import StartFailed

    assert isinstance(failure, StartFailed)
    report_error(failure.error, context)


def _proxy(container: Container, context: Context) -> Callable[[int], None]:
    """Passes signals on; a second SIGINT kills, because process 1 ignores what it does not
    handle, and a person who presses ^C twice means it.
    """
    interrupts = 0

    def pass_on(number: int) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1 and number == signal.SIGINT:
            context.warn("lamina: interrupted twice: killing the container")
            number = signal.SIGKILL
        container.send_signal(number)

    return pass_on


class terminal_kept:  # noqa: N801  # used as `with terminal_kept(stdin):`
    """The terminal as it was before, however what is inside ends (None: nothing to keep)."""

    def __init__(self, stdin: TextIO | None) -> None:
        self._descriptor = stdin.fileno() if stdin is not None and stdin.isatty() else None
        self._saved: list[Any] = []

    def __enter__(self) -> None:
        if self._descriptor is not None:
            import termios

            self._saved = termios.tcgetattr(self._descriptor)

    def __exit__(self, *exc: object) -> None:
        if self._descriptor is not None:
            import termios

            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._saved)
