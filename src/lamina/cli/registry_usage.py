# SPDX-License-Identifier: Apache-2.0
"""Print how many bytes and tags a repository of a registry holds, and its quota."""

from __future__ import annotations

import json

from lamina.cli.registry_ledger import add_place, ledger_of, parse_name
from lamina.errors import Kind, LaminaError
from lamina.server.admin import as_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] NAME"


def configure(parser: Parser) -> None:
    add_place(parser)
    parser.switch("--json", help="print JSON")
    parser.add_argument("name", metavar="NAME")


def run(args: argparse.Namespace, context: Context) -> int:
    repository, tag, digest = parse_name(args.name)
    if tag or digest:
        raise LaminaError("a name without a tag or digest", kind=Kind.USAGE)
    with ledger_of(args, context) as (ledger, _):
        usage = ledger.usage(repository)
    if usage is None:
        raise LaminaError(f"{repository} is not here", kind=Kind.NOT_FOUND)
    if args.json:
        context.print(json.dumps(as_json(usage)))
        return 0
    context.print(f"bytes  {usage.bytes} of {usage.bytes_limit or 'any number'}")
    context.print(f"tags   {usage.tags} of {usage.tags_limit or 'any number'}")
    context.print(f"removed manifests that can be had back  {usage.removed_manifests}")
    return 0
