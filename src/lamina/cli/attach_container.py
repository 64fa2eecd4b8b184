# SPDX-License-Identifier: Apache-2.0
"""Join this terminal's input and output to those of a running container."""

from __future__ import annotations

from lamina.app.containers import find
from lamina.cli.attach import DETACHED, check_terminal, detach_keys, stay_attached

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] CONTAINER"
STATUS_OF_FAILURE = 1


def configure(parser: Parser) -> None:
    parser.switch("--no-stdin", help="do not pass standard input on")
    parser.switch("--sig-proxy", default=True, help="pass signals to the container")
    parser.add_argument("--detach-keys", default="", help="keys that detach: ctrl-p,ctrl-q")
    parser.add_argument("container", metavar="CONTAINER")


def run(args: argparse.Namespace, context: Context) -> int:
    keys = detach_keys(args.detach_keys)
    container = find(context.store(), args.container)
    container.check_attachable()
    config = container.config
    check_terminal(context, terminal=config.process.terminal, stdin=not args.no_stdin)
    status = stay_attached(
        container,
        context,
        keys=keys,
        sig_proxy=args.sig_proxy,
        stdin=config.stdin_open and not args.no_stdin,
    )
    if status is None:
        context.warn(DETACHED)
        return 1  # as Docker
    return status
