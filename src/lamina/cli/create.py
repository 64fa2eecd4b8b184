# SPDX-License-Identifier: Apache-2.0
"""Create a container from an image, to be started later."""

from __future__ import annotations

from lamina.cli.creation import add_creation_flags, create_container
from lamina.cli.run_flags import run_options
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] IMAGE [COMMAND] [ARG...]"
STATUS_OF_FAILURE = 1


def configure(parser: Parser) -> None:
    add_creation_flags(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    if not args.rest:
        raise LaminaError("'lamina create' requires at least 1 argument", kind=Kind.USAGE)
    container = create_container(args, run_options(args, context), context)
    if any(mount.type == "volume" for mount in container.config.process.mounts):
        try:
            container.fill_volumes()
        except BaseException:
            container.remove(volumes=True)
            raise
    context.print(container.id)
    return 0
