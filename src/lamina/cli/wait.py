# SPDX-License-Identifier: Apache-2.0
"""Wait until containers have ended, then print their exit statuses."""

from __future__ import annotations

from lamina.cli.each import each

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.app.containers import Container
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "CONTAINER [CONTAINER...]"


def configure(parser: Parser) -> None:
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, context: Context) -> int:
    def wait(container: Container) -> str:
        return str(container.wait())

    return each(args.containers, context, wait)
