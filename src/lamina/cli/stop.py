# SPDX-License-Identifier: Apache-2.0
"""Stop running containers."""

from __future__ import annotations

from lamina.cli.stop_flags import add_stop_flags

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
    from lamina.cli.each import each
    from lamina.container.lifecycle import signal_named

    number = signal_named(args.signal) if args.signal else None

    def stop(container: Container) -> None:
        container.stop(timeout=args.timeout, number=number)

    return each(args.containers, context, stop)
