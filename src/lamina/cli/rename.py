# SPDX-License-Identifier: Apache-2.0
"""Give a container another name."""

from __future__ import annotations

from lamina.app.containers import find

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "CONTAINER NEW_NAME"
STATUS_OF_FAILURE = 1


def configure(parser: Parser) -> None:
    parser.add_argument("container", metavar="CONTAINER")
    parser.add_argument("name", metavar="NEW_NAME")


def run(args: argparse.Namespace, context: Context) -> int:
    find(context.store(), args.container).rename(args.name)
    return 0
