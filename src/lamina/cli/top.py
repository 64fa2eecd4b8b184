# SPDX-License-Identifier: Apache-2.0
"""List the processes of a container."""

from __future__ import annotations

from lamina.app.containers import find
from lamina.app.processes import processes
from lamina.cli.arguments import REMAINDER

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "CONTAINER [ps OPTIONS]"
STATUS_OF_FAILURE = 1


def configure(parser: Parser) -> None:
    parser.stops_at_positional = True
    parser.add_argument("container", metavar="CONTAINER")
    parser.add_argument("options", nargs=REMAINDER, metavar="ps OPTIONS")


def run(args: argparse.Namespace, context: Context) -> int:
    for line in processes(find(context.store(), args.container), args.options or ["-ef"]):
        context.print(line)
    return 0
