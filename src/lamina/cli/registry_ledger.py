# SPDX-License-Identifier: Apache-2.0
"""What the commands on a registry's past share: its tables, opened beside the server."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager

from lamina.errors import Kind, LaminaError
from lamina.server import routes
from lamina.server.config import Config, load_config
from lamina.server.database import Database
from lamina.server.quotas import Quotas
from lamina.server.sqliteledger import SqliteLedger

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context
    from lamina.server.ledger import Ledger


def add_place(parser: Parser) -> None:
    """The flags that say which registry."""
    parser.add_argument(
        "--root", default="", metavar="DIR", help="where the registry keeps its blobs"
    )
    parser.add_argument(
        "--config", default="", metavar="FILE", help="its configuration (docs/registry-server.md)"
    )


@contextmanager
def ledger_of(args: argparse.Namespace, context: Context) -> Iterator[tuple[Ledger, Config]]:
    """The ledger of the registry that the flags name, and its configuration; it may be running.

    Raises:
        LaminaError: kind NOT_FOUND if there is no registry, UNSUPPORTED if its format is older.
    """
    root = context.path(args.root) if args.root else ""
    if args.config:
        config = load_config(context.path(args.config), root=root)
    else:
        config = Config(root=root or f"{context.root}/registry")
    if config.bucket is not None:
        raise LaminaError("a registry in a bucket keeps no history", kind=Kind.UNSUPPORTED)
    path = f"{config.root}/registry.sqlite"
    if not os.path.exists(path):
        raise LaminaError(f"{config.root} is not the directory of a registry", kind=Kind.NOT_FOUND)
    database = Database(path, beside=True)
    try:
        yield (
            SqliteLedger(
                database,
                clock=context.clock,
                window=config.window,
                grace=config.grace,
                quotas=Quotas(config.quotas),
            ),
            config,
        )
    finally:
        database.close()


def parse_name(text: str) -> tuple[str, str, str]:
    """(repository, tag, digest) of `NAME[:TAG][@DIGEST]`, a name inside the registry.

    Raises:
        LaminaError: kind INVALID.
    """
    rest, _, digest = text.partition("@")
    name, _, tag = rest.partition(":")
    routes.check_name(name)
    if tag:
        routes.check_tag(tag)
    if digest:
        routes.parse_digest(digest)
    return name, tag, digest


def shown_time(moment: float) -> str:
    """A POSIX time in UTC, as RFC 3339 writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
