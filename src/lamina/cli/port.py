# SPDX-License-Identifier: Apache-2.0
"""List the published ports of a container."""

from __future__ import annotations

from lamina.app.containers import find
from lamina.container.network.publish import join_host
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "CONTAINER [PRIVATE_PORT[/PROTO]]"


def configure(parser: Parser) -> None:
    parser.add_argument("container", metavar="CONTAINER")
    parser.add_argument("port", nargs="?", default="", metavar="PRIVATE_PORT[/PROTO]")


def run(args: argparse.Namespace, context: Context) -> int:
    container = find(context.store(), args.container)
    wanted = args.port if "/" in args.port or not args.port else f"{args.port}/tcp"
    found = False
    for port in container.ports:
        inside = f"{port.container_port}/{port.protocol}"
        outside = join_host(port.host_ip or "0.0.0.0", port.host_port)  # noqa: S104  # a text
        if wanted in {"", inside}:
            found = True
            context.print(outside if wanted else f"{inside} -> {outside}")
    if wanted and not found:
        raise LaminaError(
            f"no public port '{wanted}' published for {args.container}", kind=Kind.NOT_FOUND
        )
    return 0
