# SPDX-License-Identifier: Apache-2.0
"""Our standard streams joined to a container's: shared by `run`, `start -a`, `attach` and `exec`."""

from __future__ import annotations

import os

from lamina.errors import Kind, LaminaError
from lamina.start.lowlevel import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.app.containers import Container
    from lamina.cli.context import Context
    from lamina.container.console import Session
    from lamina.system.sockets import Socket

DETACHED = "read escape sequence"  # Docker's words


def check_terminal(context: Context, *, terminal: bool, stdin: bool) -> None:
    """A terminal in the container needs one here. Raises LaminaError of kind USAGE."""
    if terminal and stdin and not context.stdin.isatty():
        raise LaminaError(
            "cannot attach stdin to a TTY-enabled container because stdin is not a terminal",
            kind=Kind.USAGE,
            hint="leave out -t, or run it from a terminal",
        )


_DEFAULT_KEYS = b"\x10\x11"  # ctrl-p ctrl-q


def detach_keys(text: str) -> bytes:
    """The bytes of `--detach-keys`; Docker's default if it is not given."""
    if not text:
        return _DEFAULT_KEYS
    from lamina.container.detachkeys import parse_detach_keys

    return parse_detach_keys(text)


def run_attached(
    container: Container,
    context: Context,
    *,
    keys: bytes,
    sig_proxy: bool,
    attach: tuple[str, ...] | None = None,
) -> int:
    """Start the container with our streams and stay until it ends; its exit status.

    The status is 0 after the detach keys, and if there is input only, at its end. `attach` names the
    streams (None: those the container was created for).
    """
    from lamina.container.console import StartFailed, window_size

    config = container.config
    wanted = config.attach if attach is None else attach
    stdin, outputs = _streams(wanted, context)
    terminal = config.process.terminal
    size = None
    if terminal:
        size = window_size(context.stdout.fileno()) or window_size(context.stdin.fileno())
    # what goes into a pipe or a file has to be complete
    holds = any(not os.isatty(output) for output in outputs if output is not None)
    with container.start(
        attach=True, stdin=stdin is not None, holds=holds, size=size
    ) as connection:
        session = _session(
            connection, container, context, wanted=wanted, keys=keys, sig_proxy=sig_proxy
        )
        try:
            session.await_start()
        except StartFailed as failure:
            report(failure, context)
            return failure.status
        if outputs == (None, None):
            context.print(container.id)
            context.stdout.flush()
        status = session.run()
    if status is not None:
        return status
    if session.is_detached or outputs == (None, None):
        return 0
    return _status_of(container)


def stay_attached(
    container: Container, context: Context, *, keys: bytes, sig_proxy: bool, stdin: bool
) -> int | None:
    """Join our streams to those of a container that runs, until it ends; its exit status, or None
    after the detach keys.
    """
    wanted = ("stdin", "stdout", "stderr") if stdin else ("stdout", "stderr")
    context.stdout.flush()
    with container.attach(stdin=stdin) as connection:
        session = _session(
            connection,
            container,
            context,
            wanted=wanted,
            keys=keys,
            sig_proxy=sig_proxy and not container.config.process.terminal,
            redraws=True,
        )
        status = session.run()
    if status is not None or session.is_detached:
        return status
    return _status_of(container)


def _status_of(container: Container) -> int:
    """The exit status of a container whose monitor has let us go without one."""
    if container.state().orphaned:
        raise LaminaError(
            f"the monitor of container {container.name} was killed: it runs on, its output is lost",
            hint=f"lamina restart {container.name}",
        )
    return container.wait()


def _streams(
    wanted: tuple[str, ...], context: Context
) -> tuple[int | None, tuple[int | None, int | None]]:
    """The descriptors of (standard input, (output, error)); None for what is not wanted."""
    context.stdout.flush()
    context.stderr.flush()
    return (
        context.stdin.fileno() if "stdin" in wanted else None,
        (
            context.stdout.fileno() if "stdout" in wanted else None,
            context.stderr.fileno() if "stderr" in wanted else None,
        ),
    )


def _session(
    connection: Socket,
    container: Container,
    context: Context,
    *,
    wanted: tuple[str, ...],
    keys: bytes,
    sig_proxy: bool,
    redraws: bool = False,
) -> Session:
    from lamina.container.console import Session

    terminal = container.config.process.terminal
    stdin, (stdout, stderr) = _streams(wanted, context)
    return Session(
        connection,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        terminal=terminal,
        redraws=redraws,
        detach_keys=keys,
        on_signal=_proxy(container, context) if sig_proxy else None,
    )


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
