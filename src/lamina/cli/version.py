# SPDX-License-Identifier: Apache-2.0
"""Print the version of lamina."""

from __future__ import annotations

from lamina.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS]"


def configure(parser: Parser) -> None:
    parser.add_argument("-f", "--format", default="", help="'json' or a Go template")


def run(args: argparse.Namespace, context: Context) -> int:
    if not args.format:
        context.print(f"lamina version {__version__}")
        return 0
    import os
    import platform

    from lamina.cli.format import render

    row = {
        "Client": {
            "Version": __version__,
            "Python": platform.python_version(),
            "Os": "linux",
            "Arch": os.uname().machine,
            "KernelVersion": os.uname().release,
        }
    }
    context.print(render("{{json .}}" if args.format == "json" else args.format, row))
    return 0
