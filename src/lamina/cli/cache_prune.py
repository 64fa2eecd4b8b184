# SPDX-License-Identifier: Apache-2.0
"""Remove cache mounts that no build uses."""

from __future__ import annotations

from lamina.app.cachemounts import prune_caches
from lamina.app.disk import Pruned
from lamina.cli.cache_filter import add_filter, parse_filter
from lamina.cli.prune import confirmed, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS]"
_QUESTION = "WARNING! This will remove {what} cache mounts. Are you sure you want to continue?"


def configure(parser: Parser) -> None:
    parser.switch("-f", "--force", help="do not ask")
    add_filter(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    wanted = parse_filter(args.filter, context)
    question = _QUESTION.format(what="these" if args.filter else "all")
    if not confirmed(question, context, what="cache", force=args.force):
        return 1
    gone, freed = prune_caches(context.store(), wanted)
    lines = tuple(f"{cache.short}  {cache.name}" for cache in gone)
    show([("Deleted cache mounts:", Pruned(lines, freed))], context)
    return 0
