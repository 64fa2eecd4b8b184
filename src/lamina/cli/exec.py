# SPDX-License-Identifier: Apache-2.0
"""Run a command in a running container."""

from __future__ import annotations

from lamina.cli.arguments import REMAINDER
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] CONTAINER COMMAND [ARG...]"
STATUS_OF_FAILURE = 1  # docker exec: its own failures; 126 and 127 are the command's


def configure(parser: Parser) -> None:
    parser.stops_at_positional = True
    parser.switch("-d", "--detach", help="run in the background")
    parser.add_argument("-e", "--env", action="append", default=[], help="NAME=VALUE or NAME")
    parser.add_argument(
        "--env-file", action="append", default=[], help="read variables from a file"
    )
    parser.switch("-i", "--interactive", help="keep standard input open")
    parser.switch("-t", "--tty", help="give it a terminal")
    parser.add_argument("-u", "--user", default="", help="NAME|UID[:GROUP|GID]")
    parser.add_argument("-w", "--workdir", default="", help="working directory")
    parser.switch("--privileged", help="all capabilities")
    parser.add_argument("--detach-keys", default="", help="keys that detach: ctrl-p,ctrl-q")
    parser.add_argument("rest", nargs=REMAINDER, metavar="CONTAINER COMMAND [ARG...]")


def run(args: argparse.Namespace, context: Context) -> int:
    from lamina.app.containers import Host, find
    from lamina.cli.attach import DETACHED, check_terminal, detach_keys, report
    from lamina.cli.run_flags import environment
    from lamina.container.console import Detached, StartFailed

    if len(args.rest) < 2:
        raise LaminaError("'lamina exec' requires at least 2 arguments", kind=Kind.USAGE)
    check_terminal(context, terminal=args.tty, stdin=args.interactive and not args.detach)
    settings = context.settings()
    host = Host(runtime=settings.runtime, subnet=settings.subnet, forks=True)
    keys = detach_keys(args.detach_keys)
    container = find(context.store(), args.rest[0], host=host)
    env = environment(args.env, args.env_file, context)
    context.stdout.flush()
    terminal = args.tty and not args.detach
    try:
        return container.exec(
            args.rest[1:],
            env=env,
            user=args.user,
            working_dir=args.workdir,
            privileged=args.privileged,
            terminal=terminal,
            detach=args.detach,
            detach_keys=keys,
            stdin=context.stdin.fileno() if args.interactive and not args.detach else None,
            stdout=None if args.detach else context.stdout.fileno(),
            stderr=None if args.detach else context.stderr.fileno(),
        )
    except StartFailed as failure:
        if args.detach or terminal:  # otherwise the runtime has said it on standard error
            report(failure, context)
        return 126 if failure.status == 125 else failure.status
    except Detached:
        context.warn(DETACHED)
        return 1
