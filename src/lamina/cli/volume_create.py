# SPDX-License-Identifier: Apache-2.0
"""Create a volume."""

from __future__ import annotations

import os

from lamina.app.volumes import parse_labels
from lamina.container import volumes
from lamina.container.names import new_id
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] [VOLUME]"
STATUS_OF_FAILURE = 1
_CLUSTER = "lamina has no cluster volumes"


def configure(parser: Parser) -> None:
    parser.add_argument("-d", "--driver", default="local", help="only 'local'")
    parser.add_argument(
        "--label", action="append", default=[], metavar="KEY=VALUE", help="give it a label"
    )
    parser.add_argument("--name", default="", help="its name (deprecated: give it as the argument)")
    parser.add_argument(
        "-o",
        "--opt",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="type=none, o=bind and device=/DIRECTORY: a directory of the host",
    )
    parser.refuse("--availability", "--group", "--limit-bytes", "--required-bytes", why=_CLUSTER)
    parser.refuse("--scope", "--secret", "--sharing", "--type", why=_CLUSTER)
    parser.refuse("--topology-preferred", "--topology-required", why=_CLUSTER)
    parser.add_argument("volume", nargs="?", default="", help="its name (default: one is made up)")


def run(args: argparse.Namespace, context: Context) -> int:
    if args.name and args.volume:
        raise LaminaError(
            "conflicting options: cannot specify a volume-name through both --name and as a "
            "positional arg",
            kind=Kind.USAGE,
        )
    if args.driver != "local":
        raise LaminaError(
            f"volume driver {args.driver!r} is not supported",
            kind=Kind.UNSUPPORTED,
            hint="local is",
        )
    name, labels = args.volume or args.name, parse_labels(args.label)
    if not name:
        name, labels = new_id(os.urandom), (*labels, (volumes.ANONYMOUS, ""))
    options = tuple((key, value) for key, _, value in (text.partition("=") for text in args.opt))
    volumes.create(context.store(), volumes.Volume(name, labels, options))
    context.print(name)
    return 0
