# SPDX-License-Identifier: Apache-2.0
"""Write the files of a container as a tar archive."""

from __future__ import annotations

from lamina.app.container_files import export
from lamina.app.containers import find
from lamina.cli.output_file import write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] CONTAINER"
STATUS_OF_FAILURE = 1


def configure(parser: Parser) -> None:
    parser.add_argument("-o", "--output", default="", metavar="FILE", help="write to FILE")
    parser.add_argument("container", metavar="CONTAINER")


def run(args: argparse.Namespace, context: Context) -> int:
    container = find(context.store(), args.container)

    def fill(write: Callable[[bytes], object]) -> None:
        export(context.store(), container, write)

    write_output(args.output, fill, context)
    return 0
