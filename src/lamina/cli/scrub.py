# SPDX-License-Identifier: Apache-2.0
"""Read every blob and manifest of a stopped registry and print the digests that are damaged."""

from __future__ import annotations

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


def run(args: argparse.Namespace, context: Context) -> int:
    from lamina.errors import EXIT_STATUS, Kind, LaminaError
    from lamina.registry.server.filesystem import FilesystemStorage

    root = context.path(args.root) if args.root else f"{context.root}/registry"
    import os

    if not os.path.exists(f"{root}/registry.sqlite"):
        raise LaminaError(f"{root} is not the directory of a registry", kind=Kind.NOT_FOUND)
    storage = FilesystemStorage(root, clock=context.clock)
    try:
        damaged = storage.upkeep.scrub()
    finally:
        storage.close()
    for digest in damaged:
        context.print(digest)
    return EXIT_STATUS[Kind.INTEGRITY] if damaged else 0
