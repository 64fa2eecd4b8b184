# SPDX-License-Identifier: Apache-2.0
"""Remove all networks that no container is in."""

from __future__ import annotations

from lamina.app.networks import prune
from lamina.cli.prune import NETWORKS, add_flags, confirmed, parse_filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS]"
STATUS_OF_FAILURE = 1
_QUESTION = """WARNING! This will remove all custom networks not used by at least one container.
Are you sure you want to continue?"""


def configure(parser: Parser) -> None:
    add_flags(parser, filters="networks that match: until=, label=, label!=")


def run(args: argparse.Namespace, context: Context) -> int:
    wanted = parse_filters(args.filter, context)
    if not confirmed(_QUESTION, context, what="network", force=args.force):
        return 1
    if names := prune(context.store(), takes=wanted.takes):
        context.print("\n".join([NETWORKS, *names, ""]))
    return 0
