# SPDX-License-Identifier: Apache-2.0
"""Attach files (a signature, an SBOM) to an image in its registry."""

from __future__ import annotations

import os

from lamina.app.artifacts import attach
from lamina.cli.view import make_view
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "--artifact-type TYPE [OPTIONS] NAME[:TAG|@DIGEST] [FILE[:MEDIATYPE]...]"
_MAX_FILE = 256 * 1024 * 1024  # bytes; it is held in memory


def configure(parser: Parser) -> None:
    parser.add_argument("--artifact-type", default="", help="what the artifact is (a media type)")
    parser.add_argument(
        "-a", "--annotation", action="append", default=[], help="annotation: KEY=VALUE"
    )
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("files", nargs="*", metavar="FILE[:MEDIATYPE]")


def run(args: argparse.Namespace, context: Context) -> int:
    if not args.artifact_type:
        raise LaminaError("attach needs --artifact-type", kind=Kind.USAGE)
    annotations: dict[str, str] = {}
    for text in args.annotation:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise LaminaError(f"invalid --annotation {text!r}: expected KEY=VALUE", kind=Kind.USAGE)
        annotations[key] = value
    files = []
    for text in args.files:
        path, _, media_type = text.partition(":")
        with open(context.path(path), "rb") as file:
            data = file.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise LaminaError(f"{path} is larger than {_MAX_FILE} bytes", kind=Kind.EXHAUSTED)
        files.append((os.path.basename(path), media_type or "application/octet-stream", data))
    view = make_view("auto", context, quiet=False, builds=False)
    try:
        with context.registries() as registries:
            digest = attach(
                registries,
                args.name,
                files,
                artifact_type=args.artifact_type,
                annotations=annotations,
                work=context.work(view),
            )
    finally:
        view.close()
    context.print(str(digest))
    return 0
