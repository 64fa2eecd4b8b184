# SPDX-License-Identifier: Apache-2.0
"""Make an image from a root filesystem: a tar (plain, gzip, zstd, xz, bzip2) or a directory."""

from __future__ import annotations

import os

from lamina.app.images import tagged_reference
from lamina.app.importing import ImportOptions, import_directory, import_tar
from lamina.cli.change_flag import add_change_flag
from lamina.cli.values import parse_epoch
from lamina.errors import Kind, LaminaError
from lamina.spec.platform import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] FILE|DIRECTORY|- [REPOSITORY[:TAG]]"


def configure(parser: Parser) -> None:
    add_change_flag(parser)
    parser.add_argument("-m", "--message", default="", help="the comment in the image's history")
    parser.add_argument("--platform", default="", help="what the files are for, e.g. linux/arm64")
    parser.add_argument("source", metavar="FILE|DIRECTORY|-")
    parser.add_argument("name", nargs="?", default="", metavar="REPOSITORY[:TAG]")


def run(args: argparse.Namespace, context: Context) -> int:
    if args.source.startswith(("http://", "https://")):
        raise LaminaError(
            "import from a URL is not supported yet",
            kind=Kind.UNSUPPORTED,
            hint="download it first: curl -L URL | lamina import - NAME",
        )
    options = ImportOptions(
        names=(str(tagged_reference(args.name)),) if args.name else (),
        platform=Platform.parse(args.platform) if args.platform else context.platform(),
        created=context.clock(),
        epoch=parse_epoch(context.env.get("SOURCE_DATE_EPOCH", "")),
        changes=tuple(args.change),
        # not the path: the same files make the same image, wherever they were (as in Docker)
        message=args.message or "Imported from -",
    )
    key, cancel = str(os.getpid()), context.token()
    path = context.path(args.source)
    if args.source == "-":
        if context.stdin.isatty():
            raise LaminaError(
                "import from standard input, but it is a terminal",
                kind=Kind.USAGE,
                hint="redirect standard input or give a file",
            )
        packed = import_tar(context.store(), context.stdin.buffer, options, key=key, cancel=cancel)
    elif os.path.isdir(path):
        packed = import_directory(context.store(), path, options, key=key, cancel=cancel)
    else:
        with open(path, "rb") as file:
            packed = import_tar(context.store(), file, options, key=key, cancel=cancel)
    context.print(str(packed.config))
    return 0
