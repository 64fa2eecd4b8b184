# SPDX-License-Identifier: Apache-2.0
"""Write images to an archive."""

from __future__ import annotations

from lamina.app.images import save_images
from lamina.cli.output_file import write_output
from lamina.errors import Kind, LaminaError
from lamina.spec.platform import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] IMAGE [IMAGE...]"
_FORMATS = ("docker-archive", "oci-archive")


def configure(parser: Parser) -> None:
    parser.add_argument("-o", "--output", default="", metavar="FILE", help="write to FILE")
    parser.add_argument(
        "--format", default=_FORMATS[0], help=f"{' or '.join(_FORMATS)} (default {_FORMATS[0]})"
    )
    parser.add_argument("--platform", default="", help="of images for several, this one")
    parser.add_argument("images", nargs="+", metavar="IMAGE")


def run(args: argparse.Namespace, context: Context) -> int:
    if args.format not in _FORMATS:
        raise LaminaError(
            f"unknown archive format {args.format!r}",
            kind=Kind.USAGE,
            hint=f"formats: {', '.join(_FORMATS)}",
        )
    platform = Platform.parse(args.platform) if args.platform else context.platform()

    def fill(write: Callable[[bytes], object]) -> None:
        save_images(
            context.store(),
            args.images,
            write,
            format=args.format,
            platform=platform,
            exact=bool(args.platform),
            cancel=context.token(),
        )

    write_output(args.output, fill, context)
    return 0
