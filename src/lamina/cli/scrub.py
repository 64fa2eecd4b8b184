# SPDX-License-Identifier: Apache-2.0
"""Read every blob and manifest of a registry and print the digests that are damaged.

A directory's registry must be stopped, a bucket's servers may run.
"""

from __future__ import annotations

import os

from lamina.errors import EXIT_STATUS, Kind, LaminaError
from lamina.server.config import Config, load_config
from lamina.server.storage import open_driver
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS]"


def configure(parser: Parser) -> None:
    parser.add_argument(
        "--root", default="", metavar="DIR", help="where the registry keeps its blobs"
    )
    parser.add_argument(
        "--config", default="", metavar="FILE", help="the server's configuration, for a bucket"
    )


def run(args: argparse.Namespace, context: Context) -> int:
    root = context.path(args.root) if args.root else ""
    if args.config:
        config = load_config(context.path(args.config), root=root)
    else:
        config = Config(root=root or f"{context.root}/registry")
    _check_exists(config)
    # it reads, and lamina's store is not the registry's to scrub
    driver = open_driver(replace(config, read_only=True, share_store=""), clock=context.clock)
    storage = driver.storage
    try:
        damaged = storage.upkeep.scrub()
    finally:
        storage.close()
    for digest in damaged:
        context.print(digest)
    return EXIT_STATUS[Kind.INTEGRITY] if damaged else 0


def _check_exists(config: Config) -> None:
    if config.bucket is None and not os.path.exists(f"{config.root}/registry.sqlite"):
        raise LaminaError(f"{config.root} is not the directory of a registry", kind=Kind.NOT_FOUND)
