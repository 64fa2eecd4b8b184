# SPDX-License-Identifier: Apache-2.0
"""Remove cache mounts."""

from __future__ import annotations

from lamina.app.cachemounts import find_caches, remove_cache
from lamina.cli.report import report
from lamina.errors import EXIT_STATUS, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "CACHE [CACHE...]"


def configure(parser: Parser) -> None:
    help = "a cache id, or a mount's id: all caches that have it"
    parser.add_argument("caches", nargs="+", metavar="CACHE", help=help)


def run(args: argparse.Namespace, context: Context) -> int:
    status = 0
    for text in args.caches:
        try:
            for cache in find_caches(context.store(), [text]):
                remove_cache(context.store(), cache)
                context.print(cache.short)
        except LaminaError as error:
            report(error, context)
            status = status or EXIT_STATUS[error.kind]
    return status
