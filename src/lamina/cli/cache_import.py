# SPDX-License-Identifier: Apache-2.0
"""Read cache mounts from a directory, archive or registry."""

from __future__ import annotations

from lamina.app.cachecopies import import_caches
from lamina.cli.cache_copy_flags import add_copy_flags
from lamina.cli.places import CACHE_PLACES, parse_cache_place
from lamina.cli.view import make_view

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] SOURCE [ID...]"


def configure(parser: Parser) -> None:
    add_copy_flags(parser)
    parser.add_argument("source", metavar="SOURCE", help=CACHE_PLACES)
    parser.add_argument("ids", nargs="*", metavar="ID", help="only caches of these mounts' ids")


def run(args: argparse.Namespace, context: Context) -> int:
    source = parse_cache_place(args.source, absolute=context.path)
    view = make_view(args.progress or "auto", context, quiet=args.quiet)
    try:
        with context.registries() as registries:
            made = import_caches(
                context.store(),
                registries,
                source,
                ids=args.ids,
                wait=args.wait,
                work=context.work(view),
            )
    finally:
        view.close()
    for cache in made:
        context.print(f"{cache.short}  {cache.name}")
    return 0
