# SPDX-License-Identifier: Apache-2.0
"""A command in the files of a build's step, with its environment: `enter`, and `--on-fail=shell`."""

from __future__ import annotations

from lamina.app.builds import enter
from lamina.app.containers import Host
from lamina.app.failing import failed_place
from lamina.cli.attach import check_terminal, detach_keys, run_attached
from lamina.cli.report import report
from lamina.errors import Kind, LaminaError
from lamina.events import silent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.app.builds import Place
    from lamina.builder.ports import StepFailed
    from lamina.cli.context import Context


def check_can_enter(context: Context, *, reads_stdin: bool) -> None:
    """Raise unless a shell could read from standard input after a failure."""
    if reads_stdin:
        raise LaminaError(
            "--on-fail=shell needs standard input, which the build reads", kind=Kind.USAGE
        )
    if context.stdin.closed:
        raise LaminaError("--on-fail=shell needs standard input", kind=Kind.USAGE)


def enter_failed(error: StepFailed, context: Context, *, runtime: str) -> None:
    """Report the failure of a step, then a shell in its files with its environment and mounts.

    The shell reads standard input; at a terminal it gets one.
    """
    report(error, context)
    with failed_place(error) as place:
        context.warn("lamina: a shell in the failed step; leave it to end the build")
        at_terminal = context.stdin.isatty() and context.stdout.isatty()
        enter_place(place, (), context, runtime=runtime, terminal=at_terminal, interactive=True)


def enter_place(
    place: Place,
    command: tuple[str, ...],
    context: Context,
    *,
    runtime: str,
    terminal: bool,
    interactive: bool,
) -> int:
    """Run the command (none: the shell) in the step's place, our streams joined; its exit status."""
    check_terminal(context, terminal=terminal, stdin=interactive)
    if not interactive and not command:
        raise LaminaError("no command to run, and nobody to type one", kind=Kind.USAGE)
    settings = context.settings()
    container = enter(
        context.store(),
        place,
        command,
        terminal=terminal,
        interactive=interactive,
        host=Host(runtime=runtime or settings.runtime, subnet=settings.subnet, forks=True),
        work=context.work(silent),
    )
    return run_attached(container, context, keys=detach_keys(""), sig_proxy=True)
