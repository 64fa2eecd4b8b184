# SPDX-License-Identifier: Apache-2.0
"""Remove containers."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.app.containers import Container
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] CONTAINER [CONTAINER...]"


def configure(parser: Parser) -> None:
    parser.switch("-f", "--force", help="kill it first if it runs; no error if it is not there")
    parser.switch("-v", "--volumes", help="anonymous volumes too")
    parser.refuse("-l", "--link", why="there are no links")
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, context: Context) -> int:
    from lamina.app.containers import find
    from lamina.cli.each import each
    from lamina.container.state import ContainerNotFound

    names = list(args.containers)
    if args.force:
        names = []
        for name in args.containers:
            try:
                find(context.store(), name)
            except ContainerNotFound as error:  # docker rm -f: said, and not a failure
                context.warn(f"lamina: {error}")
            else:
                names.append(name)

    def remove(container: Container) -> None:
        container.remove(force=args.force, volumes=args.volumes)

    return each(names, context, remove)
