# SPDX-License-Identifier: Apache-2.0
"""Create a container from an image and run a command in it."""

from __future__ import annotations

from lamina.cli.creation import add_creation_flags, create_container
from lamina.cli.run_flags import run_options
from lamina.errors import Kind, LaminaError
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.app.containers import Container
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] IMAGE [COMMAND] [ARG...]"
STATUS_OF_FAILURE = 125  # docker run(1), exit status


def configure(parser: Parser) -> None:
    parser.switch("-d", "--detach", help="run in the background and print the container's id")
    parser.switch("--sig-proxy", default=True, help="pass signals to the container")
    parser.add_argument("--detach-keys", default="", help="keys that detach: ctrl-p,ctrl-q")
    add_creation_flags(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    from lamina.cli.attach import check_terminal, detach_keys

    if not args.rest:
        raise LaminaError("'lamina run' requires at least 1 argument", kind=Kind.USAGE)
    options = run_options(args, context)
    if args.detach:
        if args.attach:
            raise LaminaError("Conflicting options: -a and -d", kind=Kind.USAGE)
        options = replace(options, attach=())
    check_terminal(
        context, terminal=options.terminal, stdin=options.interactive and not args.detach
    )
    keys = detach_keys(args.detach_keys)
    container = create_container(args, options, context)
    if args.detach:
        return _run_detached(container, context)
    from lamina.cli.attach import run_attached

    return run_attached(container, context, keys=keys, sig_proxy=args.sig_proxy)


def _run_detached(container: Container, context: Context) -> int:
    from lamina.container.console import StartFailed

    try:
        container.start().close()
    except StartFailed as failure:
        from lamina.cli.attach import report

        report(failure, context)
        return failure.status
    context.print(container.id)
    return 0
