# SPDX-License-Identifier: Apache-2.0
"""What the prune commands share: filters, the question, and Docker's words for the answer."""

from __future__ import annotations

from lamina.app.autogc import parse_age
from lamina.app.disk import PruneFilter
from lamina.errors import Kind, LaminaError
from lamina.image.sizes import human_size
from lamina.image.times import parse_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.app.disk import Pruned
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

CONTAINERS = "Deleted Containers:"  # the headings of `show`
NETWORKS = "Deleted Networks:"
IMAGES = "Deleted Images:"
CACHE = "Deleted build cache objects:"
VOLUMES = "Deleted Volumes:"


def add_flags(parser: Parser, *, filters: str) -> None:
    """`--force` and `--filter`."""
    parser.switch("-f", "--force", help="do not ask")
    parser.add_argument(
        "--filter", action="append", default=[], metavar="KEY=VALUE", help=f"only {filters}"
    )


def parse_filters(texts: Sequence[str], context: Context) -> PruneFilter:
    """The filter of `until=`, `label=` and `label!=`. Raises LaminaError of kind USAGE."""
    until: float | None = None
    labels: dict[str, list[tuple[str, str | None]]] = {"label": [], "label!": []}
    for text in texts:
        key, equals, value = text.partition("=")
        if text.startswith("label!="):
            key, value = "label!", text.removeprefix("label!=")
        if not equals:
            raise LaminaError(f"invalid argument {text!r} for --filter: KEY=VALUE", kind=Kind.USAGE)
        if key == "until":
            until = parse_until(value, context)
        elif key in labels:
            name, has_value, wanted = value.partition("=")
            labels[key].append((name, wanted if has_value else None))
        else:
            raise LaminaError(
                f"invalid filter '{key}'", kind=Kind.USAGE, hint="until=, label=, label!="
            )
    return PruneFilter(until, tuple(labels["label"]), tuple(labels["label!"]))


def parse_until(text: str, context: Context) -> float:
    """POSIX seconds of a duration before now (`24h`), a Unix time or an RFC 3339 time or date.

    Raises LaminaError of kind USAGE.
    """
    if text.replace(".", "", 1).isdigit():
        return float(text)
    for complete in (text, f"{text}Z", f"{text}:00Z", f"{text}T00:00:00Z"):
        found = parse_time(complete)
        if found is not None:
            return found
    try:
        return context.clock() - parse_age(text)
    except LaminaError as error:
        raise LaminaError(
            f"invalid filter 'until={text}': neither a duration nor a time",
            kind=Kind.USAGE,
            hint="until=24h, until=2026-01-31T12:00:00Z",
        ) from error


def confirmed(question: str, context: Context, *, what: str, force: bool) -> bool:
    """Whether to go on; asks on standard input unless it is forced, and says if not."""
    if force:
        return True
    context.stdout.write(f"{question} [y/N] ")
    context.stdout.flush()
    if context.stdin.readline().strip().lower() in {"y", "yes"}:
        return True
    context.warn(f"lamina: {what} prune has been cancelled")
    return False


def show(pruned: Sequence[tuple[str, Pruned]], context: Context) -> None:
    """Print what was removed under its headings, and the bytes."""
    for heading, each in pruned:
        if each.lines:
            context.print(heading)
            for line in each.lines:
                context.print(line)
            context.print()
    total = sum(each.bytes for _, each in pruned)
    context.print(f"Total reclaimed space: {human_size(total)}")
