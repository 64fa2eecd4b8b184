# SPDX-License-Identifier: Apache-2.0
"""Give an image another name."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]"


def configure(parser: Parser) -> None:
    parser.add_argument("source", help="an image's name or id")
    parser.add_argument("target", help="the new name; it moves if it is another image's")


def run(args: argparse.Namespace, context: Context) -> int:
    from lamina.app.images import tag

    tag(context.store(), args.source, args.target)
    return 0
