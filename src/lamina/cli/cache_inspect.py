# SPDX-License-Identifier: Apache-2.0
"""Print details of cache mounts as JSON."""

from __future__ import annotations

from lamina.app.cachemounts import find_caches, inspect_caches
from lamina.cli.format import documents
from lamina.image.times import format_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.app.cachemounts import CacheInfo
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] CACHE [CACHE...]"


def configure(parser: Parser) -> None:
    parser.add_argument("-f", "--format", default="", help="a Go template instead of JSON")
    parser.add_argument("caches", nargs="+", metavar="CACHE", help="a cache id, or a mount's id")


def run(args: argparse.Namespace, context: Context) -> int:
    store = context.store()
    found = inspect_caches(store, find_caches(store, args.caches))
    for line in documents(args.format, [_document(info) for info in found]):
        context.print(line)
    return 0


def _document(info: CacheInfo) -> dict[str, object]:
    cache = info.cache
    return {
        "Id": cache.short,
        "Key": cache.key,
        "Name": cache.name,
        "Namespace": cache.namespace,
        "Variant": cache.variant,
        "Path": cache.path,
        "Size": info.size,
        "LastUsed": format_time(int(cache.last_used)),
        "InUse": info.in_use,
        "Build": cache.build,
        "Step": cache.step,
    }
