# SPDX-License-Identifier: Apache-2.0
"""Print what happens to containers, images, volumes and networks."""

from __future__ import annotations

import time

from lamina.app.happenings import happenings, parse_filters
from lamina.cli.format import parse_template
from lamina.cli.ui.escape import printable
from lamina.container.logs import NANOSECONDS, parse_moment
from lamina.errors import Kind, LaminaError
from lamina.start.jsontext import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context
    from lamina.store.eventreader import Occurrence

USAGE = "[OPTIONS]"


def configure(parser: Parser) -> None:
    parser.add_argument(
        "-f", "--filter", action="append", default=[], help="container=, event=, type=, label=, ..."
    )
    parser.add_argument("--format", default="", help="json, or a Go template")
    parser.add_argument("--since", default="", help="a time, or a duration such as 10m")
    parser.add_argument("--until", default="", help="a time, or a duration such as 10m")


def run(args: argparse.Namespace, context: Context) -> int:
    def now() -> int:
        return int(context.clock() * NANOSECONDS)

    selection = parse_filters(args.filter)
    shown = _shown(args.format)
    found = happenings(
        context.store().root,
        selection,
        now=now,
        since=parse_moment(args.since, now=now) if args.since else None,
        until=parse_moment(args.until, now=now) if args.until else None,
    )
    for occurrence in found:
        context.print(shown(occurrence))
        context.stdout.flush()
    return 0


def _shown(format_text: str) -> Callable[[Occurrence], str]:
    """How an event becomes a line."""
    if not format_text:
        return _line
    if format_text in {"json", "{{json .}}"}:
        return lambda occurrence: dumps(_document(occurrence), separators=(",", ":"))
    if format_text.startswith("table"):
        raise LaminaError("events have no table format", kind=Kind.USAGE)
    template = parse_template(format_text)
    return lambda occurrence: template.render(_fields(occurrence))


def _line(occurrence: Occurrence) -> str:
    """docker/cli, command/system/events.go: prettyPrintEvent."""
    attributes = ", ".join(f"{name}={value}" for name, value in sorted(occurrence.attributes))
    line = f"{_time(occurrence.at)} {occurrence.type} {occurrence.action} {occurrence.id}"
    return printable(f"{line} ({attributes})" if attributes else line)


def _time(at: int) -> str:
    """RFC 3339 in the local zone with nine decimals."""
    seconds, rest = divmod(at, 1_000_000_000)
    local = time.localtime(seconds)
    offset = time.strftime("%z", local)
    zone = "Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:]}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", local) + f".{rest:09d}{zone}"


def _document(occurrence: Occurrence) -> dict[str, object]:
    """The event as Docker's API writes it; `status`, `id` and `from` are its older names."""
    attributes = dict(sorted(occurrence.attributes))
    older: dict[str, object] = {}
    if occurrence.type in {"container", "image"}:
        older = {"status": occurrence.action, "id": occurrence.id}
        if occurrence.type == "container" and "image" in attributes:
            older["from"] = attributes["image"]
    return {
        **older,
        "Type": occurrence.type,
        "Action": occurrence.action,
        "Actor": {"ID": occurrence.id, "Attributes": attributes},
        "scope": "local",
        "time": occurrence.at // NANOSECONDS,
        "timeNano": occurrence.at,
    }


def _fields(occurrence: Occurrence) -> dict[str, object]:
    """What a template can name: the fields of Docker's Go type."""
    document = _document(occurrence)
    names = {"status": "Status", "id": "ID", "from": "From"}
    renamed = {name: document.get(key, "") for key, name in names.items()}
    return {
        **renamed,
        "Type": document["Type"],
        "Action": document["Action"],
        "Actor": document["Actor"],
        "Scope": "local",
        "Time": document["time"],
        "TimeNano": document["timeNano"],
    }
