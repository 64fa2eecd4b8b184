# SPDX-License-Identifier: Apache-2.0
"""Remove volumes that no container has."""

from __future__ import annotations

from lamina.cli.report import report
from lamina.container.volumes import remove
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] VOLUME [VOLUME...]"
STATUS_OF_FAILURE = 1


def configure(parser: Parser) -> None:
    parser.switch("-f", "--force", help="no error if it is not there")
    parser.add_argument("volumes", nargs="+", metavar="VOLUME")


def run(args: argparse.Namespace, context: Context) -> int:
    status = 0
    for name in args.volumes:
        try:
            remove(context.store(), name)
        except LaminaError as error:
            if not (args.force and error.kind is Kind.NOT_FOUND):
                report(error, context)
                status = 1
                continue
        context.print(name)
        context.stdout.flush()
    return status
