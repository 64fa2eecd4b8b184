# SPDX-License-Identifier: Apache-2.0
"""Enter a step of a recorded build: a throw-away container on what the step made."""

from __future__ import annotations

from lamina.app.builds import find_place
from lamina.cli.arguments import REMAINDER
from lamina.cli.step_shell import enter_place
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

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
    text = args.rest[0] if args.rest else ""
    place = find_place(context.store(), text)
    if args.user:
        place = replace(place, user=args.user)
    if args.workdir:
        place = replace(place, cwd=args.workdir)
    at_terminal = context.stdin.isatty() and context.stdout.isatty()
    plain = not args.rest[1:] and not (args.tty or args.interactive)
    return enter_place(
        place,
        tuple(args.rest[1:]),
        context,
        runtime=args.runtime,
        terminal=args.tty or (plain and at_terminal),
        interactive=args.interactive or plain,
    )
