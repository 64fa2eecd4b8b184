# SPDX-License-Identifier: Apache-2.0
"""Print the history of an image, newest first."""

from __future__ import annotations

from lamina.app.images import history
from lamina.cli.format import ago, listing
from lamina.image.sizes import human_size
from lamina.spec.platform import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.app.images import HistoryLine
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] IMAGE"
HEADERS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
_WIDTH = 45  # docker/cli cuts CREATED BY there


def configure(parser: Parser) -> None:
    parser.switch("-H", "--human", default=True, help="sizes and dates for people")
    parser.switch("-q", "--quiet", help="only image ids")
    parser.switch("--no-trunc", help="do not shorten")
    parser.add_argument("--format", help="'table', 'table TEMPLATE', 'json', or a Go template")
    parser.add_argument("--platform", default="", help="of an image for several, this one")
    parser.add_argument("image")


def run(args: argparse.Namespace, context: Context) -> int:
    platform = Platform.parse(args.platform) if args.platform else context.platform()
    lines = history(context.store(), args.image, platform=platform, exact=bool(args.platform))
    rows = [_row(line, now=context.clock(), full=args.no_trunc, human=args.human) for line in lines]
    columns = ["ID", "CreatedSince", "CreatedBy", "Size", "Comment"]
    for text in listing(
        args.format, headers=HEADERS, default=columns, rows=rows, quiet="ID" if args.quiet else ""
    ):
        context.print(text)
    return 0


def _row(line: HistoryLine, *, now: float, full: bool, human: bool) -> dict[str, object]:
    id = line.id or "<missing>"
    by = line.entry.created_by.replace("\t", " ")
    if not full:
        id = id.removeprefix("sha256:")[:12] if line.id else id
        by = by if len(by) <= _WIDTH else by[: _WIDTH - 1] + "\N{HORIZONTAL ELLIPSIS}"
    since = ago(now - line.created) if line.created is not None else "N/A"
    return {
        "ID": id,
        "CreatedSince": since if human else line.entry.created,
        "CreatedAt": line.entry.created or "N/A",
        "CreatedBy": by,
        "Size": human_size(line.size) if human else str(line.size),
        "Comment": line.entry.comment,
    }
