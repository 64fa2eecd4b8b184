# SPDX-License-Identifier: Apache-2.0
"""Write cache mounts to a directory, archive or registry."""

from __future__ import annotations

from lamina.app.cachecopies import export_caches
from lamina.app.cachemounts import find_caches, first_of_each
from lamina.cli.cache_copy_flags import add_copy_flags
from lamina.cli.places import CACHE_PLACES, parse_cache_place
from lamina.cli.view import make_view
from lamina.errors import Kind, LaminaError
from lamina.store.cachemounts import walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] --to TARGET (--all | CACHE [CACHE...])"


def configure(parser: Parser) -> None:
    parser.add_argument("--to", required=True, metavar="TARGET", help=CACHE_PLACES)
    parser.switch("-a", "--all", help="every cache")
    parser.add_argument(
        "--compression",
        default="zstd",
        choices=["zstd", "gzip", "uncompressed"],
        help="of the layers (default zstd)",
    )
    add_copy_flags(parser)
    help = "a cache id, or a mount's id: all caches that have it"
    parser.add_argument("caches", nargs="*", metavar="CACHE", help=help)


def run(args: argparse.Namespace, context: Context) -> int:
    if args.all == bool(args.caches):
        raise LaminaError("name the caches to export, or say --all", kind=Kind.USAGE)
    target = parse_cache_place(args.to, absolute=context.path)
    store = context.store()
    found = list(walk(store.root)) if args.all else find_caches(store, args.caches)
    view = make_view(args.progress or "auto", context, quiet=args.quiet)
    try:
        with context.registries() as registries:
            digest = export_caches(
                store,
                registries,
                first_of_each(found),
                target,
                compression=args.compression,
                wait=args.wait,
                work=context.work(view),
            )
    finally:
        view.close()
    context.print(str(digest))
    return 0
