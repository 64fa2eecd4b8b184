# SPDX-License-Identifier: Apache-2.0
"""Print the output of a container."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] CONTAINER"
STATUS_OF_FAILURE = 1


def configure(parser: Parser) -> None:
    parser.switch("-f", "--follow", help="go on until the container ends")
    parser.add_argument("-n", "--tail", default="all", help="lines from the end, or 'all'")
    parser.add_argument("--since", default="", help="a time, or a duration such as 10m")
    parser.add_argument("--until", default="", help="a time, or a duration such as 10m")
    parser.switch("-t", "--timestamps", help="print when each line was written")
    parser.refuse("--details", why="the log keeps no attributes")
    parser.add_argument("container", metavar="CONTAINER")


def run(args: argparse.Namespace, context: Context) -> int:
    from lamina.app.containers import find
    from lamina.container.logs import NANOSECONDS, format_time, parse_moment

    def now() -> int:
        return int(context.clock() * NANOSECONDS)

    container = find(context.store(), args.container)
    outputs = {1: context.stdout.buffer, 2: context.stderr.buffer}
    for entry in container.logs(
        follow=args.follow,
        tail=_tail(args.tail),
        since=parse_moment(args.since, now=now) if args.since else None,
        until=parse_moment(args.until, now=now) if args.until else None,
    ):
        output = outputs[entry.stream]
        if args.timestamps:
            output.write(f"{format_time(entry.at)} ".encode())
        output.write(entry.data)
        if args.follow or entry.stream == 2:
            output.flush()
    return 0


def _tail(text: str) -> int | None:
    """Lines; None for all, which is what Docker makes of anything negative too."""
    if text == "all":
        return None
    try:
        count = int(text)
    except ValueError:
        raise LaminaError(f"invalid number of lines: {text!r}", kind=Kind.USAGE) from None
    return count if count >= 0 else None
