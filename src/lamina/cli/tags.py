# SPDX-License-Identifier: Apache-2.0
"""List the tags of a repository in a registry."""

from __future__ import annotations

from lamina.cli.ui.escape import printable
from lamina.spec.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "REPOSITORY"


def configure(parser: Parser) -> None:
    parser.add_argument("repository", help="the repository, without a tag")


def run(args: argparse.Namespace, context: Context) -> int:
    with context.registries() as registries:
        for tag in registries.repository(Reference.parse(args.repository)).tags():
            context.print(printable(tag))
    return 0
