# SPDX-License-Identifier: Apache-2.0
"""Read cache mounts from a directory, archive or registry."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] SOURCE [ID...]"


def configure(parser: Parser) -> None:
    from lamina.cli.cache_export import PLACES, add_common

    add_common(parser)
    parser.add_argument("source", metavar="SOURCE", help=PLACES)
    parser.add_argument("ids", nargs="*", metavar="ID", help="only caches of these mounts' ids")


def run(args: argparse.Namespace, context: Context) -> int:
    from lamina.app.cachecopies import import_caches, parse_destination
    from lamina.cli.build import make_view
    from lamina.cli.registries import connect

    source = parse_destination(args.source, absolute=context.path)
    view = make_view(args.progress or "auto", context, quiet=args.quiet)
    try:
        with connect(context) as connected:
            made = import_caches(
                context.store(),
                connected,
                source,
                ids=args.ids,
                wait=args.wait,
                emit=view,
                cancel=context.token(),
                clock=context.clock,
            )
    finally:
        view.close()
    for cache in made:
        context.print(f"{cache.short}  {cache.name}")
    return 0
