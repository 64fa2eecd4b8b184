# SPDX-License-Identifier: Apache-2.0
"""Write the files of a container as a tar archive."""

from __future__ import annotations

from lamina.app.container_files import export
from lamina.app.containers import find
from lamina.errors import Kind, LaminaError
from lamina.exporter.destination import write_aside
from lamina.exporter.ports import Exported

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

    if args.output not in {"", "-"}:
        write_aside(context.path(args.output), fill, Exported(None, None)).finalize()
        return 0
    if context.stdout.isatty():
        raise LaminaError(
            "cowardly refusing to save to a terminal",
            kind=Kind.USAGE,
            hint="use -o FILE or redirect standard output",
        )
    fill(context.stdout.buffer.write)
    context.stdout.flush()
    return 0
