# SPDX-License-Identifier: Apache-2.0
"""Log out from a registry."""

from __future__ import annotations

from lamina.app.login import logout
from lamina.app.registries import credential_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[SERVER]"


def configure(parser: Parser) -> None:
    parser.add_argument("server", nargs="?", default="", help="HOST[:PORT] (default: Docker Hub)")


def run(args: argparse.Namespace, context: Context) -> int:
    host, found = logout(credential_store(context.env, uid=context.uid), args.server)
    context.print(f"Removing login credentials for {host}" if found else f"Not logged in to {host}")
    return 0
