# SPDX-License-Identifier: Apache-2.0
"""Connect a container to a network."""

from __future__ import annotations

from lamina.app.containers import find
from lamina.app.run_options import NetworkRequest
from lamina.app.runnetworks import check_request

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] NETWORK CONTAINER"
STATUS_OF_FAILURE = 1


def configure(parser: Parser) -> None:
    help = "a further name of the container in the network"
    parser.add_argument("--alias", action="append", default=[], help=help, metavar="ALIAS")
    parser.add_argument("--ip", default="", help="its IPv4 address there")
    parser.add_argument("--ip6", default="", help="its IPv6 address there")
    parser.refuse("--link", why="containers of a network find one another by name")
    parser.refuse("--driver-opt", "--gw-priority", "--link-local-ip", why="lamina has no such")
    parser.add_argument("network", metavar="NETWORK")
    parser.add_argument("container", metavar="CONTAINER")


def run(args: argparse.Namespace, context: Context) -> int:
    request = NetworkRequest(args.network, tuple(args.alias), args.ip, args.ip6)
    check_request(request)
    find(context.store(), args.container).connect(request)
    return 0
