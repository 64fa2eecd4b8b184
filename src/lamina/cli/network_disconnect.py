# SPDX-License-Identifier: Apache-2.0
"""Disconnect a container from a network."""

from __future__ import annotations

from lamina.app.containers import find

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] NETWORK CONTAINER"
STATUS_OF_FAILURE = 1


def configure(parser: Parser) -> None:
    parser.switch("-f", "--force", help="also if the container's monitor was killed")
    parser.add_argument("network", metavar="NETWORK")
    parser.add_argument("container", metavar="CONTAINER")


def run(args: argparse.Namespace, context: Context) -> int:
    find(context.store(), args.container).disconnect(args.network, force=args.force)
    return 0
