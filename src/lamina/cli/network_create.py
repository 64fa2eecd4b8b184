# SPDX-License-Identifier: Apache-2.0
"""Create a network."""

from __future__ import annotations

from lamina.app.networks import NetworkOptions, create
from lamina.container.network.subnets import Wanted
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] NETWORK"
STATUS_OF_FAILURE = 1
_SWARM = "lamina runs containers on this host only"


def configure(parser: Parser) -> None:
    parser.switch("--attachable", help="containers may attach themselves, as they always may here")
    parser.add_argument("-d", "--driver", default="bridge", help="only bridge")
    _many(parser, "--gateway", help="address of the bridge", metavar="IP")
    parser.switch("--internal", help="nothing leads out of the network, or into it")
    _many(parser, "--ip-range", help="give addresses of this part", metavar="SUBNET")
    parser.switch("--ipv6", help="IPv6 too")
    _many(parser, "--label", help="label, KEY=VALUE", metavar="LABEL")
    _many(parser, "-o", "--opt", help="option of the bridge, KEY=VALUE", metavar="OPTION")
    _many(parser, "--subnet", help="subnet, as 172.30.0.0/16", metavar="SUBNET")
    parser.add_argument("--scope", default="local", help="only local")
    parser.add_argument("--ipam-driver", default="default", help="only default")
    parser.refuse("--aux-address", "--ipam-opt", why="--ip-range says which addresses are given")
    parser.refuse("--config-from", "--config-only", "--ingress", why=_SWARM)
    parser.refuse("--ipv4", why="networks have IPv4 addresses")
    parser.add_argument("name", metavar="NETWORK")


def _many(parser: Parser, *names: str, help: str, metavar: str) -> None:
    parser.add_argument(*names, action="append", default=[], help=help, metavar=metavar)


def run(args: argparse.Namespace, context: Context) -> int:
    for flag, value, only in (
        ("--driver", args.driver, "bridge"),
        ("--scope", args.scope, "local"),
        ("--ipam-driver", args.ipam_driver, "default"),
    ):
        if value != only:
            raise LaminaError(
                f"{flag} {value} is not supported", kind=Kind.UNSUPPORTED, hint=f"only {only} is"
            )
    options = NetworkOptions(
        wanted=Wanted(tuple(args.subnet), tuple(args.gateway), tuple(args.ip_range), args.ipv6),
        internal=args.internal,
        attachable=args.attachable,
        options=_pairs(args.opt, "--opt"),
        labels=_pairs(args.label, "--label"),
    )
    network = create(
        context.store(),
        args.name,
        options,
        reserved=context.settings().subnet,
        clock=context.clock,
    )
    context.print(network.id)
    return 0


def _pairs(texts: Sequence[str], flag: str) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name:
            raise LaminaError(f'invalid argument "{text}" for "{flag}" flag', kind=Kind.USAGE)
        found[name] = value
    return tuple(found.items())
