# SPDX-License-Identifier: Apache-2.0
"""Check what this host has for building and running as this user, and how to mend what it lacks."""

from __future__ import annotations

from lamina.app.doctor import FAILS, examine
from lamina.cli.ui.escape import printable
from lamina.container.runtime import DEFAULT_SEARCH_PATH
from lamina.start.jsontext import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS]"
FAILED = 1  # something that lamina needs fails


def configure(parser: Parser) -> None:
    parser.switch("--json", help="print the findings as JSON, one a line")


def run(args: argparse.Namespace, context: Context) -> int:
    """0 if lamina can build and run here, whatever it lacks besides; 1 if not."""
    search = f"{context.env.get('PATH', '')}:{DEFAULT_SEARCH_PATH}".lstrip(":")
    status = 0
    for each in examine(context.store(), context.settings(), search_path=search):
        if each.status == FAILS:
            status = FAILED
        if args.json:
            fields = ("name", "status", "found", "mend")
            context.print(dumps({field: getattr(each, field) for field in fields}))
            continue
        context.print(f"{each.status:<6} {each.name}: {printable(each.found)}")
        if each.mend:
            context.print(f"       mend it: {printable(each.mend)}")
    return status
