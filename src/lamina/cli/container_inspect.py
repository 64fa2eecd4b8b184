# SPDX-License-Identifier: Apache-2.0
"""Print details of containers as JSON."""

from __future__ import annotations

from lamina.cli.inspection import add_format, add_size, container_document, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] CONTAINER [CONTAINER...]"


def configure(parser: Parser) -> None:
    add_format(parser)
    add_size(parser, help="add SizeRw and SizeRootFs")
    parser.add_argument("names", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, context: Context) -> int:
    return show(
        args.names,
        args.format,
        context,
        look=lambda name: container_document(name, context, size=args.size),
    )
