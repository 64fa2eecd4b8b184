# SPDX-License-Identifier: Apache-2.0
"""Bring a removed tag or manifest back, or move a tag back to a digest of its history."""

from __future__ import annotations

from lamina.cli.registry_ledger import add_place, ledger_of, parse_name
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] NAME:TAG | NAME@DIGEST | NAME:TAG@DIGEST"


def configure(parser: Parser) -> None:
    add_place(parser)
    parser.add_argument("name", metavar="NAME[:TAG][@DIGEST]")


def run(args: argparse.Namespace, context: Context) -> int:
    repository, tag, digest = parse_name(args.name)
    if not tag and not digest:
        raise LaminaError(f"{args.name} has neither a tag nor a digest", kind=Kind.USAGE)
    with ledger_of(args, context) as (ledger, _):
        restored = ledger.undelete(
            repository, tag=tag, digest=digest, user=f"local uid {context.uid}"
        )
    for name in restored.tags:
        context.print(f"{repository}:{name} is {restored.digest}")
    for found in restored.manifests:
        context.print(f"restored {repository}@{found}")
    return 0
