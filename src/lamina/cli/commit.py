# SPDX-License-Identifier: Apache-2.0
"""Make an image of a container."""

from __future__ import annotations

from lamina.app.committing import CommitOptions, commit
from lamina.app.containers import find
from lamina.app.images import tagged_reference
from lamina.cli.change_flag import add_change_flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]"
STATUS_OF_FAILURE = 1


def configure(parser: Parser) -> None:
    parser.add_argument("-a", "--author", default="", help="who made it")
    add_change_flag(parser)
    parser.add_argument("-m", "--message", default="", help="the comment in the image's history")
    parser.switch("-p", "--pause", default=True, help="pause the container meanwhile")
    parser.add_argument("container", metavar="CONTAINER")
    parser.add_argument("name", nargs="?", default="", metavar="REPOSITORY[:TAG]")


def run(args: argparse.Namespace, context: Context) -> int:
    container = find(context.store(), args.container)
    options = CommitOptions(
        created=context.clock(),
        names=(str(tagged_reference(args.name)),) if args.name else (),
        changes=tuple(args.change),
        message=args.message,
        author=args.author,
        pause=args.pause,
    )
    context.print(str(commit(context.store(), container, options, cancel=context.token())))
    return 0
