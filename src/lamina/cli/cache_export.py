# SPDX-License-Identifier: Apache-2.0
"""Write cache mounts to a directory, archive or registry."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] --to TARGET (--all | CACHE [CACHE...])"
PLACES = (
    "DIR (/..., ./...), NAME in a registry, oci:DIR[:NAME], oci-archive:FILE[:NAME], "
    "type=local,dest=DIR, type=oci,dest=FILE, type=registry,ref=NAME"
)


def configure(parser: Parser) -> None:
    parser.add_argument("--to", required=True, metavar="TARGET", help=PLACES)
    parser.switch("-a", "--all", help="every cache")
    parser.add_argument(
        "--compression",
        default="zstd",
        choices=["zstd", "gzip", "uncompressed"],
        help="of the layers (default zstd)",
    )
    add_common(parser)
    help = "a cache id, or a mount's id: all caches that have it"
    parser.add_argument("caches", nargs="*", metavar="CACHE", help=help)


def add_common(parser: Parser) -> None:
    """The flags that export and import share."""
    parser.switch("--wait", help="wait for builds that use a cache; else they are an error")
    parser.switch("-q", "--quiet", help="no progress")
    parser.add_argument("--progress", default="", choices=["auto", "plain", "tty", "json", "quiet"])


def run(args: argparse.Namespace, context: Context) -> int:
    from lamina.app.cachecopies import export_caches, parse_destination
    from lamina.app.cachemounts import find_caches, first_of_each
    from lamina.cli.build import make_view
    from lamina.cli.registries import connect
    from lamina.store.cachemounts import walk

    if args.all == bool(args.caches):
        raise LaminaError("name the caches to export, or say --all", kind=Kind.USAGE)
    target = parse_destination(args.to, absolute=context.path)
    store = context.store()
    found = list(walk(store.root)) if args.all else find_caches(store, args.caches)
    view = make_view(args.progress or "auto", context, quiet=args.quiet)
    try:
        with connect(context) as connected:
            digest = export_caches(
                store,
                connected,
                first_of_each(found),
                target,
                compression=args.compression,
                wait=args.wait,
                emit=view,
                cancel=context.token(),
                clock=context.clock,
            )
    finally:
        view.close()
    context.print(str(digest))
    return 0
