# SPDX-License-Identifier: Apache-2.0
"""Print a systemd unit that starts a container after a reboot."""

from __future__ import annotations

import os
import sys

from lamina.app.containers import find
from lamina.app.units import UnitRequest, file_name, unit
from lamina.container.lifecycle import signal_named

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] CONTAINER"


def configure(parser: Parser) -> None:
    parser.switch("-f", "--files", help="write container-ID.service in this directory instead")
    parser.switch("-n", "--name", help="use the container's name instead of its id")
    parser.add_argument(
        "--restart-policy", default="", help="systemd's Restart=, on-failure if not given"
    )
    parser.refuse(
        "--new", why="the command line of a container is not kept: write ExecStart=lamina run ..."
    )
    parser.add_argument("container", metavar="CONTAINER")


def run(args: argparse.Namespace, context: Context) -> int:
    container = find(context.store(), args.container)
    config = container.config
    subject = container.name if args.name else container.id
    text = unit(
        UnitRequest(
            program=_program(),
            root=context.root,
            name=container.name,
            subject=subject,
            stop_timeout=config.stop_timeout,
            stop_signal=signal_named(config.stop_signal),
            is_user=context.uid != 0,
            restarts_itself=config.restart != "no",
            policy=args.restart_policy,
        )
    )
    if not args.files:
        context.stdout.write(text)
        return 0
    path = context.path(file_name(subject))
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    context.print(path)
    return 0


def _program() -> tuple[str, ...]:
    """What starts lamina as it was started now."""
    script = os.path.abspath(sys.argv[0])
    if os.path.basename(script) == "lamina" and os.access(script, os.X_OK):
        return (script,)
    return (sys.executable, "-m", "lamina.cli.main")
