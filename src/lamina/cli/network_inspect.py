# SPDX-License-Identifier: Apache-2.0
"""Print details of networks as JSON."""

from __future__ import annotations

from lamina.cli.inspection import add_format, network_document, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] NETWORK [NETWORK...]"
STATUS_OF_FAILURE = 1


def configure(parser: Parser) -> None:
    add_format(parser)
    parser.switch("-v", "--verbose", help="more of swarm's networks, which there are none of")
    parser.add_argument("names", nargs="+", metavar="NETWORK")


def run(args: argparse.Namespace, context: Context) -> int:
    return show(args.names, args.format, context, look=lambda name: network_document(name, context))
