# SPDX-License-Identifier: Apache-2.0
"""Restart containers."""

from __future__ import annotations

from lamina.cli.each import each
from lamina.cli.stop_flags import add_stop_flags
from lamina.container.lifecycle import signal_named

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.app.containers import Container
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] CONTAINER [CONTAINER...]"


def configure(parser: Parser) -> None:
    add_stop_flags(parser)
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, context: Context) -> int:
    number = signal_named(args.signal) if args.signal else None

    def restart(container: Container) -> None:
        container.restart(timeout=args.timeout, number=number)

    return each(args.containers, context, restart)
