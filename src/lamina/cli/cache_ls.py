# SPDX-License-Identifier: Apache-2.0
"""List cache mounts."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lamina.app.cachemounts import CacheFilter, CacheInfo
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


def add_filter(parser: Parser) -> None:
    """`--filter`, as `parse_filter` reads it."""
    help = "only caches that match: id=NAME (may have * and ?), until=24h, in-use=true|false"
    parser.add_argument("--filter", action="append", default=[], metavar="KEY=VALUE", help=help)


def run(args: argparse.Namespace, context: Context) -> int:
    from lamina.app.cachemounts import list_caches
    from lamina.cli.format import listing

    wanted = parse_filter(args.filter, context)
    found = [info for info in list_caches(context.store()) if wanted.takes(info)]
    rows = [_row(info, now=context.clock()) for info in found]
    columns = ["ID", "Name", "Size", "LastUsedSince", "InUse", "Build"]
    quiet = "ID" if args.quiet else ""
    for line in listing(args.format, headers=HEADERS, default=columns, rows=rows, quiet=quiet):
        context.print(line)
    return 0


def parse_filter(texts: Sequence[str], context: Context) -> CacheFilter:
    """The filter of `id=`, `until=` (or `unused-for=`) and `in-use=`. Raises kind USAGE."""
    from lamina.app.cachemounts import CacheFilter
    from lamina.cli.prune import parse_until

    until: float | None = None
    ids: list[str] = []
    in_use: bool | None = None
    for text in texts:
        key, equals, value = text.partition("=")
        if key in {"until", "unused-for"} and equals:
            until = parse_until(value, context)
        elif key == "id" and equals:
            ids.append(value)
        elif key == "in-use" and value in {"true", "false"}:
            in_use = value == "true"
        else:
            raise LaminaError(
                f"invalid filter {text!r}",
                kind=Kind.USAGE,
                hint="id=NAME, until=24h, in-use=true|false",
            )
    return CacheFilter(until, tuple(ids), in_use)


def _row(info: CacheInfo, *, now: float) -> dict[str, object]:
    from lamina.cli.format import ago, human_size
    from lamina.cli.images import created_at

    cache = info.cache
    return {
        "ID": cache.short,
        "Name": cache.name,
        "Namespace": cache.namespace,
        "Size": human_size(info.size),
        "LastUsedSince": ago(now - cache.last_used),
        "LastUsedAt": created_at(cache.last_used),
        "InUse": str(info.in_use).lower(),
        "Build": cache.build,
        "Step": cache.step,
    }
