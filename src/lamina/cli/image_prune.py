# SPDX-License-Identifier: Apache-2.0
"""Remove unused images."""

from __future__ import annotations

from lamina.app.disk import prune_images
from lamina.cli.prune import IMAGES, add_flags, confirmed, parse_filters, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS]"
_DANGLING = """WARNING! This will remove all dangling images.
Are you sure you want to continue?"""
_ALL = """WARNING! This will remove all images without at least one container associated to them.
Are you sure you want to continue?"""


def configure(parser: Parser) -> None:
    parser.switch("-a", "--all", help="all images without a container, not only dangling ones")
    add_flags(parser, filters="images that match: until=, label=, label!=")


def run(args: argparse.Namespace, context: Context) -> int:
    wanted = parse_filters(args.filter, context)
    question = _ALL if args.all else _DANGLING
    if not confirmed(question, context, what="image", force=args.force):
        return 1
    pruned = prune_images(
        context.store(),
        all_unused=args.all,
        wanted=wanted,
        platform=context.platform(),
        emit=context.notices,
    )
    show([(IMAGES, pruned)], context)
    return 0
