# SPDX-License-Identifier: Apache-2.0
"""`--filter` of the commands for cache mounts."""

from __future__ import annotations

from lamina.app.cachemounts import CacheFilter
from lamina.cli.prune import parse_until
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context


def add_filter(parser: Parser) -> None:
    """`--filter`, as `parse_filter` reads it."""
    help = "only caches that match: id=NAME (may have * and ?), until=24h, in-use=true|false"
    parser.add_argument("--filter", action="append", default=[], metavar="KEY=VALUE", help=help)


def parse_filter(texts: Sequence[str], context: Context) -> CacheFilter:
    """The filter of `id=`, `until=` (or `unused-for=`) and `in-use=`. Raises kind USAGE."""
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
