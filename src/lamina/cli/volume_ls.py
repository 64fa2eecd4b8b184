# SPDX-License-Identifier: Apache-2.0
"""List volumes."""

from __future__ import annotations

import re

from lamina.app.volumes import VolumeFilter, list_volumes
from lamina.cli.format import listing
from lamina.container.volumes import data_of
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lamina.app.volumes import VolumeUse
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS]"
STATUS_OF_FAILURE = 1
HEADERS = {
    "Driver": "DRIVER",
    "Name": "VOLUME NAME",
    "Scope": "SCOPE",
    "Mountpoint": "MOUNTPOINT",
    "Labels": "LABELS",
    "Links": "LINKS",
    "Size": "SIZE",
    "Availability": "AVAILABILITY",
    "Group": "GROUP",
    "Status": "STATUS",
}


def configure(parser: Parser) -> None:
    parser.add_argument(
        "-f",
        "--filter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only volumes that match: dangling, driver, label, name",
    )
    parser.add_argument("--format", help="'table', 'table TEMPLATE', 'json', or a Go template")
    parser.switch("-q", "--quiet", help="only names")
    parser.refuse("--cluster", why="lamina has no cluster volumes")


def run(args: argparse.Namespace, context: Context) -> int:
    store = context.store()
    rows = [_row(use, store.root) for use in list_volumes(store, _filter(args.filter))]
    quiet = "Name" if args.quiet else ""
    columns = ("Driver", "Name")
    for line in listing(args.format, headers=HEADERS, default=columns, rows=rows, quiet=quiet):
        context.print(line)
    return 0


def _row(use: VolumeUse, root: str) -> dict[str, object]:
    volume = use.volume
    return {
        "Availability": "N/A",
        "Driver": "local",
        "Group": "N/A",
        "Labels": ",".join(f"{name}={value}" for name, value in volume.labels),
        "Links": "N/A",
        "Mountpoint": data_of(root, volume.name),
        "Name": volume.name,
        "Scope": "local",
        "Size": "N/A",
        "Status": "N/A",
    }


def _filter(texts: Sequence[str]) -> VolumeFilter:
    values: dict[str, list[str]] = {"dangling": [], "driver": [], "label": [], "name": []}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise LaminaError(f"invalid filter {text!r}: expected KEY=VALUE", kind=Kind.USAGE)
        if key not in values:
            raise LaminaError(
                f"invalid filter '{key}'", kind=Kind.USAGE, hint=f"filters: {', '.join(values)}"
            )
        values[key].append(value)
    labels = [text.partition("=") for text in values["label"]]
    return VolumeFilter(
        names=tuple(_expression(text) for text in values["name"]),
        drivers=tuple(values["driver"]),
        labels=tuple((name, value if equals else None) for name, equals, value in labels),
        dangling=_dangling(values["dangling"]),
    )


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error:
        return re.escape(text)  # as Docker: no expression is taken as it is
    return text


def _dangling(values: Sequence[str]) -> bool | None:
    found: bool | None = None
    for value in values:
        if value.lower() not in {"true", "false", "1", "0"}:
            raise LaminaError(f"invalid filter 'dangling={value}'", kind=Kind.USAGE)
        found = value.lower() in {"true", "1"}
    return found
