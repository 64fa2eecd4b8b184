# SPDX-License-Identifier: Apache-2.0
"""Send a signal to running containers."""

from __future__ import annotations

from lamina.cli.each import each
from lamina.container.lifecycle import signal_named

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.app.containers import Container
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] CONTAINER [CONTAINER...]"


def configure(parser: Parser) -> None:
    parser.add_argument("-s", "--signal", default="KILL", help="signal to send")
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, context: Context) -> int:
    number = signal_named(args.signal)

    def kill(container: Container) -> None:
        container.kill(number)

    return each(args.containers, context, kill)
