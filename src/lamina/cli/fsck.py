# SPDX-License-Identifier: Apache-2.0
"""Find what is damaged in the store, and repair it."""

from __future__ import annotations

from contextlib import ExitStack

from lamina.app.fsck import check_store
from lamina.cli.format import listing
from lamina.cli.view import make_view
from lamina.errors import EXIT_STATUS, Kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.app.fsck import Outcome
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS]"
HEADERS = {
    "State": "STATE",
    "Part": "PART",
    "Subject": "SUBJECT",
    "Problem": "PROBLEM",
    "Done": "DONE",
    "Images": "IMAGES",
}


def configure(parser: Parser) -> None:
    parser.switch("--repair", help="mend what can be: fetch, make or unpack again, else quarantine")
    parser.switch("--offline", help="with --repair: ask no registry")
    parser.switch("-q", "--quiet", help="no progress and no summary")
    parser.add_argument("--format", help="'table', 'table TEMPLATE', 'json', or a Go template")
    parser.add_argument("--progress", default="", choices=["auto", "plain", "tty", "json", "quiet"])


def run(args: argparse.Namespace, context: Context) -> int:
    view = make_view(args.progress or "auto", context, quiet=args.quiet)
    try:
        with ExitStack() as stack:
            asked = args.repair and not args.offline
            registries = stack.enter_context(context.registries()) if asked else None
            report = check_store(
                context.store(), repair=args.repair, registries=registries, work=context.work(view)
            )
    finally:
        view.close()
    rows = [_row(outcome) for outcome in report.outcomes]
    if rows or args.format not in {None, "", "table"}:
        columns = [
            "State",
            "Part",
            "Subject",
            "Problem",
            *(["Done"] if args.repair else []),
            "Images",
        ]
        for line in listing(args.format, headers=HEADERS, default=columns, rows=rows):
            context.print(line)
    if not args.quiet:
        bad = sum(outcome.is_bad for outcome in report.outcomes)
        told = (
            f", {report.unchecked} of them with nothing to compare with" if report.unchecked else ""
        )
        context.warn(
            f"lamina: {report.blobs} blobs and {report.snapshots} snapshots checked{told}: "
            + (f"{bad} damaged" if bad else "sound")
        )
    return 0 if report.is_sound else EXIT_STATUS[Kind.INTEGRITY]


def _row(outcome: Outcome) -> dict[str, object]:
    finding = outcome.finding
    return {
        "State": outcome.state,
        "Part": finding.part,
        "Subject": finding.subject,
        "Problem": finding.problem,
        "Done": outcome.done,
        "Images": ", ".join(finding.images),
    }
