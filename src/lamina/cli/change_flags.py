# SPDX-License-Identifier: Apache-2.0
"""The flags that `commit` and `import` share."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.cli.arguments import Parser


def add_change_flags(parser: Parser) -> None:
    """`--change` and `--message`."""
    parser.add_argument(
        "-c",
        "--change",
        action="append",
        default=[],
        metavar="INSTRUCTION",
        help="apply a Dockerfile instruction (CMD, ENV, EXPOSE...) to the image",
    )
    parser.add_argument("-m", "--message", default="", help="the comment in the image's history")
