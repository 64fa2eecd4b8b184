# SPDX-License-Identifier: Apache-2.0
"""List what refers to an image in its registry: signatures, SBOMs, attestations."""

from __future__ import annotations

import json

from lamina.cli.ui.escape import printable
from lamina.spec.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] NAME[:TAG|@DIGEST]"


def configure(parser: Parser) -> None:
    parser.add_argument("--artifact-type", default="", help="only this kind of artifact")
    parser.add_argument("--format", default="", choices=["", "json"], help="json: descriptors")
    parser.add_argument("name", metavar="NAME")


def run(args: argparse.Namespace, context: Context) -> int:
    reference = Reference.parse(args.name).with_default_tag()
    with context.registries() as registries:
        repository = registries.repository(reference)
        digest = reference.digest or repository.resolve(reference.tag).descriptor.digest
        entries = repository.referrers(digest, artifact_type=args.artifact_type)
    if args.format == "json":
        context.print(json.dumps([entry.to_json() for entry in entries], indent=2))
        return 0
    for entry in entries:
        kind = entry.artifact_type or entry.media_type
        context.print(f"{entry.digest}  {printable(kind)}  {entry.size}")
    return 0
