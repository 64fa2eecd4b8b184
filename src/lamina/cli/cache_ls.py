# SPDX-License-Identifier: Apache-2.0
"""List cache mounts."""

from __future__ import annotations

from lamina.app.cachemounts import list_caches
from lamina.cli.cache_filter import add_filter, parse_filter
from lamina.cli.format import ago, go_time, listing
from lamina.image.sizes import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.app.cachemounts import CacheInfo
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS]"
HEADERS = {
    "ID": "CACHE ID",
    "Name": "NAME",
    "Namespace": "NAMESPACE",
    "Size": "SIZE",
    "LastUsedSince": "LAST USED",
    "LastUsedAt": "LAST USED AT",
    "InUse": "IN USE",
    "Build": "BUILD",
    "Step": "STEP",
}


def configure(parser: Parser) -> None:
    parser.switch("-q", "--quiet", help="only ids")
    add_filter(parser)
    parser.add_argument("--format", help="'table', 'table TEMPLATE', 'json', or a Go template")


def run(args: argparse.Namespace, context: Context) -> int:
    wanted = parse_filter(args.filter, context)
    found = [info for info in list_caches(context.store()) if wanted.takes(info)]
    rows = [_row(info, now=context.clock()) for info in found]
    columns = ["ID", "Name", "Size", "LastUsedSince", "InUse", "Build"]
    quiet = "ID" if args.quiet else ""
    for line in listing(args.format, headers=HEADERS, default=columns, rows=rows, quiet=quiet):
        context.print(line)
    return 0


def _row(info: CacheInfo, *, now: float) -> dict[str, object]:
    cache = info.cache
    return {
        "ID": cache.short,
        "Name": cache.name,
        "Namespace": cache.namespace,
        "Size": human_size(info.size),
        "LastUsedSince": ago(now - cache.last_used),
        "LastUsedAt": go_time(cache.last_used),
        "InUse": str(info.in_use).lower(),
        "Build": cache.build,
        "Step": cache.step,
    }
