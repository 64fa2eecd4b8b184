# SPDX-License-Identifier: Apache-2.0
"""Print details of volumes as JSON."""

from __future__ import annotations

from lamina.cli.inspection import add_format, show, volume_document

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] VOLUME [VOLUME...]"
STATUS_OF_FAILURE = 1


def configure(parser: Parser) -> None:
    add_format(parser)
    parser.add_argument("names", nargs="+", metavar="VOLUME")


def run(args: argparse.Namespace, context: Context) -> int:
    return show(args.names, args.format, context, look=lambda name: volume_document(name, context))
