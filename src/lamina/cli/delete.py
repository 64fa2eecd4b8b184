# SPDX-License-Identifier: Apache-2.0
"""Delete a manifest from a registry, with every tag that points to it."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.spec.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] NAME:TAG|NAME@DIGEST"


def configure(parser: Parser) -> None:
    parser.switch("--tag-only", help="delete the tag and keep the manifest (OCI registries)")
    parser.add_argument("name", metavar="NAME")


def run(args: argparse.Namespace, context: Context) -> int:
    reference = Reference.parse(args.name)
    if not reference.tag and reference.digest is None:
        raise LaminaError(
            "say which tag or digest to delete: NAME:TAG or NAME@DIGEST", kind=Kind.USAGE
        )
    with context.registries() as registries:
        repository = registries.repository(reference, for_push=True)
        if args.tag_only:
            repository.delete(reference.tag)
            context.print(f"Untagged: {reference.familiar()}")
            return 0
        digest = reference.digest or repository.resolve(reference.tag).descriptor.digest
        repository.delete(str(digest))
        context.print(f"Deleted: {reference.familiar_name()}@{digest}")
    return 0
