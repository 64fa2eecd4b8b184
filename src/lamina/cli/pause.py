# SPDX-License-Identifier: Apache-2.0
"""Stop every process of containers, to be let go on by `unpause`."""

from __future__ import annotations

from lamina.cli.each import each

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.app.containers import Container
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "CONTAINER [CONTAINER...]"
STATUS_OF_FAILURE = 1


def configure(parser: Parser) -> None:
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, context: Context) -> int:
    def pause(container: Container) -> None:
        container.pause()

    return each(args.containers, context, pause)
