# SPDX-License-Identifier: Apache-2.0
"""Remove volumes that no container has."""

from __future__ import annotations

from lamina.app.disk import prune_volumes
from lamina.cli.arguments import FALSE, TRUE
from lamina.cli.prune import VOLUMES, add_flags, confirmed, parse_filters, show
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS]"
STATUS_OF_FAILURE = 1
_QUESTION = """WARNING! This will remove {} local volumes not used by at least one container.
Are you sure you want to continue?"""


def configure(parser: Parser) -> None:
    parser.switch("-a", "--all", help="all unused volumes, not only anonymous ones")
    add_flags(parser, filters="volumes that match: label=, label!=, all=1")


def run(args: argparse.Namespace, context: Context) -> int:
    everything = [text for text in args.filter if text.startswith("all=")]
    if everything and args.all:
        raise LaminaError(
            "conflicting options: cannot specify both --all and --filter all=1", kind=Kind.USAGE
        )
    for text in everything:
        if text[4:] not in TRUE and text[4:] not in FALSE:
            raise LaminaError(f"invalid filter '{text}'", kind=Kind.USAGE)
    others = [text for text in args.filter if text not in everything]
    if any(text.startswith("until=") for text in others):
        raise LaminaError("invalid filter 'until'", kind=Kind.USAGE)
    wanted = parse_filters(others, context)
    is_all = args.all or any(text[4:] in TRUE for text in everything)
    question = _QUESTION.format("all" if args.all else "anonymous")
    if not confirmed(question, context, what="volume", force=args.force):
        return 1
    pruned = prune_volumes(context.store(), all_unused=is_all, wanted=wanted)
    show([(VOLUMES, pruned)], context)
    return 0
