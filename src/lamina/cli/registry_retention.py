# SPDX-License-Identifier: Apache-2.0
"""Remove what the retention rules of a registry's configuration let go, or say what that is."""

from __future__ import annotations

import json

from lamina.cli.registry_ledger import add_place, ledger_of
from lamina.errors import Kind, LaminaError
from lamina.server.admin import as_json
from lamina.server.retention import Rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] --config FILE"


def configure(parser: Parser) -> None:
    add_place(parser)
    parser.switch("--dry-run", help="remove nothing, print what would go and why")
    parser.switch("--all", help="with --dry-run: print what stays, too")
    parser.switch("--json", help="print JSON")


def run(args: argparse.Namespace, context: Context) -> int:
    if not args.config:
        raise LaminaError("--config is missing: the rules are in it", kind=Kind.USAGE)
    if args.all and not args.dry_run:
        raise LaminaError("--all is only for --dry-run", kind=Kind.USAGE)
    with ledger_of(args, context) as (ledger, config):
        if not config.retention:
            raise LaminaError(f"{args.config} has no [[retention]]", kind=Kind.INVALID)
        verdicts = ledger.retain(Rules(config.retention), dry_run=args.dry_run)
    chosen = [verdict for verdict in verdicts if args.all or not verdict.keep]
    if args.json:
        context.print(json.dumps([as_json(verdict) for verdict in chosen], indent=2))
        return 0
    for verdict in chosen:
        word = "keep" if verdict.keep else "would remove" if args.dry_run else "removed"
        name = f":{verdict.tag}" if verdict.tag else f"@{verdict.digest}"
        context.print(f"{word} {verdict.repository}{name}: {verdict.why} (rule {verdict.rule})")
    return 0
