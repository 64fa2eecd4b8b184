# SPDX-License-Identifier: Apache-2.0
"""The flags that `cache export` and `cache import` share."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.cli.arguments import Parser


def add_copy_flags(parser: Parser) -> None:
    """`--wait`, `--quiet` and `--progress`."""
    parser.switch("--wait", help="wait for builds that use a cache; else they are an error")
    parser.switch("-q", "--quiet", help="no progress")
    parser.add_argument("--progress", default="", choices=["auto", "plain", "tty", "json", "quiet"])
