# SPDX-License-Identifier: Apache-2.0
"""Start stopped containers."""

from __future__ import annotations

from lamina.app.containers import Host, find
from lamina.cli.attach import detach_keys, run_attached, stay_attached
from lamina.cli.each import each
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.app.containers import Container
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] CONTAINER [CONTAINER...]"


def configure(parser: Parser) -> None:
    parser.switch("-a", "--attach", help="stay, print the output, pass signals on")
    parser.switch("-i", "--interactive", help="pass standard input on")
    parser.add_argument("--detach-keys", default="", help="keys that detach: ctrl-p,ctrl-q")
    parser.switch("--sig-proxy", default=True, help="with -a, pass signals to the container")
    parser.refuse("--checkpoint", "--checkpoint-dir", why="there are no checkpoints")
    parser.add_argument("containers", nargs="+", metavar="CONTAINER")


def run(args: argparse.Namespace, context: Context) -> int:
    if not (args.attach or args.interactive):
        return each(args.containers, context, _start)
    if len(args.containers) > 1:
        raise LaminaError(
            "you cannot start and attach multiple containers at once", kind=Kind.USAGE
        )
    return _start_attached(args, context)


def _start(container: Container) -> None:
    if not container.state().is_up:  # starting what runs is no error, as in Docker
        container.start().close()


def _start_attached(args: argparse.Namespace, context: Context) -> int:
    keys = detach_keys(args.detach_keys)
    settings = context.settings()
    host = Host(runtime=settings.runtime, subnet=settings.subnet, forks=True)
    container = find(context.store(), args.containers[0], host=host)
    stdin = args.interactive and container.config.stdin_open
    if container.state().is_running:  # Docker attaches, too
        status = stay_attached(container, context, keys=keys, sig_proxy=args.sig_proxy, stdin=stdin)
        return 0 if status is None else status  # 0 after the detach keys, as Docker
    outputs = ("stdout", "stderr")
    return run_attached(
        container,
        context,
        keys=keys,
        sig_proxy=args.sig_proxy and not container.config.process.terminal,
        attach=("stdin", *outputs) if stdin else outputs,
    )
