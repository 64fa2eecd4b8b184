# SPDX-License-Identifier: Apache-2.0
"""Print details of images as JSON."""

from __future__ import annotations

from lamina.cli.inspection import add_format, add_platform, image_document, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] IMAGE [IMAGE...]"


def configure(parser: Parser) -> None:
    add_format(parser)
    add_platform(parser, help="of an image for several, this one")
    parser.add_argument("names", nargs="+", metavar="IMAGE")


def run(args: argparse.Namespace, context: Context) -> int:
    return show(
        args.names,
        args.format,
        context,
        look=lambda name: image_document(name, context, platform=args.platform),
    )
