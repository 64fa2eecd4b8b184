# SPDX-License-Identifier: Apache-2.0
"""Read images from an archive of any tool: docker-archive or OCI image layout, compressed or not."""

from __future__ import annotations

from lamina.app.images import load_images
from lamina.errors import Kind, LaminaError
from lamina.spec import platform as platforms
from lamina.spec.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import IO

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context
    from lamina.spec.platform import Platform

USAGE = "[OPTIONS]"


def configure(parser: Parser) -> None:
    parser.add_argument("-i", "--input", default="", metavar="FILE", help="read from FILE")
    parser.switch("-q", "--quiet", help="no progress (there is none yet)")
    parser.add_argument("--platform", default="", help="of images for several, load this one")


def run(args: argparse.Namespace, context: Context) -> int:
    platform = platforms.Platform.parse(args.platform) if args.platform else context.platform()
    if args.input in {"", "-"}:
        if context.stdin.isatty():
            raise LaminaError(
                "requested load from standard input, but it is a terminal",
                kind=Kind.USAGE,
                hint="use -i FILE or redirect standard input",
            )
        return _load(context.stdin.buffer, platform, context, exact=bool(args.platform))
    with open(context.path(args.input), "rb") as file:
        return _load(file, platform, context, exact=bool(args.platform))


def _load(stream: IO[bytes], platform: Platform, context: Context, *, exact: bool) -> int:
    found = load_images(
        context.store(), stream, platform=platform, cancel=context.token(), exact=exact
    )
    for image in found:
        for name in image.names:
            context.print(f"Loaded image: {Reference.parse(name).familiar()}")
        if not image.names:
            context.print(f"Loaded image ID: {image.config or image.target.digest}")
    return 0
