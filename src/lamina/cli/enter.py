# SPDX-License-Identifier: Apache-2.0
"""Enter a step of a recorded build: a throw-away container on what the step made."""

from __future__ import annotations

from lamina.cli.arguments import REMAINDER
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.app.builds import Place
    from lamina.builder.ports import StepFailed
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] [BUILD][:STEP] [COMMAND] [ARG...]"
STATUS_OF_FAILURE = 125  # as `run`: other statuses are the command's


def configure(parser: Parser) -> None:
    parser.stops_at_positional = True
    parser.switch("-i", "--interactive", help="pass standard input on (the default at a terminal)")
    parser.switch("-t", "--tty", help="give it a terminal (the default at a terminal)")
    parser.add_argument("--runtime", default="", help="OCI runtime: a name or a path")
    parser.add_argument("-u", "--user", default="", help="user (default: the step's)")
    parser.add_argument("-w", "--workdir", default="", help="directory (default: the step's)")
    parser.add_argument("rest", nargs=REMAINDER, metavar="BUILD:STEP")


def run(args: argparse.Namespace, context: Context) -> int:
    from lamina.app.builds import find_place
    from lamina.start.record import replace

    text = args.rest[0] if args.rest else ""
    place = find_place(context.store(), text)
    if args.user:
        place = replace(place, user=args.user)
    if args.workdir:
        place = replace(place, cwd=args.workdir)
    at_terminal = context.stdin.isatty() and context.stdout.isatty()
    plain = not args.rest[1:] and not (args.tty or args.interactive)
    return _enter(
        place,
        tuple(args.rest[1:]),
        context,
        runtime=args.runtime,
        terminal=args.tty or (plain and at_terminal),
        interactive=args.interactive or plain,
    )


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
    from lamina.app.failing import failed_place
    from lamina.cli.main import report

    report(error, context)
    with failed_place(error) as place:
        context.warn("lamina: a shell in the failed step; leave it to end the build")
        at_terminal = context.stdin.isatty() and context.stdout.isatty()
        _enter(place, (), context, runtime=runtime, terminal=at_terminal, interactive=True)


def _enter(
    place: Place,
    command: tuple[str, ...],
    context: Context,
    *,
    runtime: str,
    terminal: bool,
    interactive: bool,
) -> int:
    from lamina.app.builds import enter
    from lamina.app.containers import Host
    from lamina.cli.attach import check_terminal, detach_keys, run_attached
    from lamina.events import silent

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
        clock=context.clock,
        emit=silent,
        cancel=context.token(),
    )
    return run_attached(container, context, keys=detach_keys(""), sig_proxy=True)
