# SPDX-License-Identifier: Apache-2.0
"""Remove all stopped containers."""

from __future__ import annotations

from lamina.app.containers import Host
from lamina.app.disk import prune_containers
from lamina.cli.prune import CONTAINERS, add_flags, confirmed, parse_filters, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS]"
_QUESTION = """WARNING! This will remove all stopped containers.
Are you sure you want to continue?"""


def configure(parser: Parser) -> None:
    add_flags(parser, filters="containers that match: until=, label=, label!=")


def run(args: argparse.Namespace, context: Context) -> int:
    wanted = parse_filters(args.filter, context)
    if not confirmed(_QUESTION, context, what="container", force=args.force):
        return 1
    settings = context.settings()
    host = Host(runtime=settings.runtime, subnet=settings.subnet)
    show([(CONTAINERS, prune_containers(context.store(), host, wanted=wanted))], context)
    return 0
