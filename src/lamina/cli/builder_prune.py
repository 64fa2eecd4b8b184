# SPDX-License-Identifier: Apache-2.0
"""Remove build cache."""

from __future__ import annotations

from lamina.app.disk import prune_cache
from lamina.cli.prune import CACHE, add_flags, confirmed, parse_until, show
from lamina.cli.values import parse_size
from lamina.errors import Kind, LaminaError
from lamina.store.eviction import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS]"
_DANGLING = "WARNING! This will remove all dangling build cache. Are you sure you want to continue?"
_ALL = "WARNING! This will remove all build cache. Are you sure you want to continue?"


def configure(parser: Parser) -> None:
    parser.switch("-a", "--all", help="also the cache of layers that an image has")
    add_flags(parser, filters="cache that was not used for a time: until=24h")
    add = parser.add_argument
    add("--keep-storage", default="", help="bytes of cache to keep")
    add("--reserved-space", default="", help="as --keep-storage")
    add("--max-used-space", default="", help="bytes of cache to keep at most")
    add("--min-free-space", default="", help="bytes of the disk that are to be free afterwards")
    parser.refuse("--builder", why="lamina has no builders to choose from")
    parser.refuse("--verbose", why="the objects are listed anyway")


def run(args: argparse.Namespace, context: Context) -> int:
    limits = limits_of(args, context)
    if not confirmed(_ALL if args.all else _DANGLING, context, what="builder", force=args.force):
        return 1
    show([(CACHE, prune_cache(context.store(), limits, emit=context.notices))], context)
    return 0


def limits_of(args: argparse.Namespace, context: Context) -> Limits:
    """The limits that the flags say. Raises LaminaError of kind USAGE."""
    until = None
    for text in args.filter:
        key, _, value = text.partition("=")
        if key not in {"until", "unused-for"}:
            raise LaminaError(f"invalid filter '{key}'", kind=Kind.USAGE, hint="until=24h")
        until = parse_until(value, context)
    sizes = {
        name: parse_size(getattr(args, name.replace("-", "_")), f"--{name}")
        for name in ("keep-storage", "reserved-space", "max-used-space", "min-free-space")
        if getattr(args, name.replace("-", "_"), "")
    }
    keep = [size for name, size in sizes.items() if name != "min-free-space" and size]
    return Limits(
        keep_bytes=min(keep) if keep else None,
        free_bytes=sizes.get("min-free-space", 0),
        unused_since=until,
        dangling_only=not args.all,
    )
