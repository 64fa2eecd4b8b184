# SPDX-License-Identifier: Apache-2.0
"""List the files of a container that differ from its image."""

from __future__ import annotations

from lamina.app.container_files import changes
from lamina.app.containers import find

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "CONTAINER"
STATUS_OF_FAILURE = 1


def configure(parser: Parser) -> None:
    parser.add_argument("container", metavar="CONTAINER")


def run(args: argparse.Namespace, context: Context) -> int:
    container = find(context.store(), args.container)
    for kind, path in changes(context.store(), container):
        context.print(f"{kind} {path.decode('utf-8', 'backslashreplace')}")
    return 0
