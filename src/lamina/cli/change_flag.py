# SPDX-License-Identifier: Apache-2.0
"""The flag that `commit`, `import` and `bootstrap` share."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.cli.arguments import Parser


def add_change_flag(parser: Parser) -> None:
    """`--change`."""
    parser.add_argument(
        "-c",
        "--change",
        action="append",
        default=[],
        metavar="INSTRUCTION",
        help="apply a Dockerfile instruction (CMD, ENV, EXPOSE...) to the image",
    )
