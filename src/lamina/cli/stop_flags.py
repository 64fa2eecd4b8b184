# SPDX-License-Identifier: Apache-2.0
"""The flags that `stop` and `restart` share."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.cli.arguments import Parser


def add_stop_flags(parser: Parser) -> None:
    """`--signal` and `--timeout`."""
    parser.add_argument("-s", "--signal", default="", help="signal to send")
    parser.add_argument(
        "-t",
        "--timeout",
        "--time",
        type=int,
        default=None,
        help="seconds before SIGKILL; -1: never",
    )
