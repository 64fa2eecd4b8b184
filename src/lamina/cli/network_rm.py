# SPDX-License-Identifier: Apache-2.0
"""Remove networks."""

from __future__ import annotations

from lamina.app.networks import remove
from lamina.cli.report import report
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] NETWORK [NETWORK...]"
STATUS_OF_FAILURE = 1


def configure(parser: Parser) -> None:
    parser.switch("-f", "--force", help="no error if it is not there")
    parser.add_argument("names", nargs="+", metavar="NETWORK")


def run(args: argparse.Namespace, context: Context) -> int:
    status = 0
    for name in args.names:
        try:
            remove(context.store(), name)
        except LaminaError as error:
            if args.force and error.kind is Kind.NOT_FOUND:
                continue
            report(error, context)
            status = 1
        else:
            context.print(name)
    return status
