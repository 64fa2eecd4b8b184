# SPDX-License-Identifier: Apache-2.0
"""Print what lamina found on this host, and why it chose what it uses."""

from __future__ import annotations

import os

from lamina.cli.format import render
from lamina.cli.ui.escape import printable
from lamina.container.info import host_report
from lamina.container.runtime import DEFAULT_SEARCH_PATH
from lamina.image.sizes import human_size
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
    rows = _rows(context)
    if args.format:
        document: dict[str, object] = {}
        for name, value in rows:
            key = name.title().replace(" ", "")
            document[key] = f"{document[key]}; {value}" if key in document else value
        template = "{{json .}}" if args.format == "json" else args.format
        context.print(render(template, document))
        return 0
    for name, value in rows:
        context.print(f"{name}: {printable(value)}")
    return 0


def _rows(context: Context) -> list[tuple[str, str]]:
    settings = context.settings()
    store = context.store()
    search = f"{context.env.get('PATH', '')}:{DEFAULT_SEARCH_PATH}".lstrip(":")
    filesystem = os.statvfs(store.root)
    free = filesystem.f_bavail * filesystem.f_frsize
    return [
        ("Version", __version__),
        ("Store", f"{store.root} ({human_size(free)} free)"),
        ("Images", str(len(store.metadata.list_names()))),
        ("Containers", str(len(store.documents.list("container")))),
        *host_report(store.root, override=settings.runtime, search_path=search),
        ("CA bundle", settings.ca_bundle or "none: RUN steps trust what the image trusts"),
        ("CPUs", str(os.cpu_count())),
    ]
