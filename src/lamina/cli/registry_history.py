# SPDX-License-Identifier: Apache-2.0
"""Print the moves of a repository's tags, and the manifests that can be had back."""

from __future__ import annotations

import json

from lamina.cli.registry_ledger import add_place, ledger_of, parse_name, shown_time
from lamina.errors import Kind, LaminaError
from lamina.server.admin import as_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] NAME[:TAG]"
_MOST = 1_000_000  # moves; more than a window of a busy registry holds


def configure(parser: Parser) -> None:
    add_place(parser)
    parser.switch("--removed", help="list removed manifests instead")
    parser.switch("--json", help="print JSON")
    parser.add_argument("name", metavar="NAME[:TAG]")


def run(args: argparse.Namespace, context: Context) -> int:
    repository, tag, digest = parse_name(args.name)
    if digest or (tag and args.removed):
        raise LaminaError("a name without a digest (with --removed: a tag)", kind=Kind.USAGE)
    with ledger_of(args, context) as (ledger, _):
        if args.removed:
            removed = ledger.removed(repository)
            lines = [
                f"{shown_time(each.removed)}  {each.digest}  {each.size} bytes  {each.why}"
                f"  {each.user or '-'}  until {shown_time(each.until)}"
                for each in removed
            ]
            documents = [as_json(each) for each in removed]
        else:
            moves = ledger.moves(repository, tag=tag, n=_MOST)
            lines = [
                f"{shown_time(move.moved)}  {move.tag}  {move.previous or '-'} -> "
                f"{move.digest or '-'}  {move.why}  {move.user or '-'}"
                for move in moves
            ]
            documents = [as_json(move) for move in moves]
    if args.json:
        context.print(json.dumps(documents, indent=2))
    else:
        for line in lines:
            context.print(line)
    return 0
