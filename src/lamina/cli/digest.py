# SPDX-License-Identifier: Apache-2.0
"""Print the digest that a name has in its registry."""

from __future__ import annotations

from lamina.app.pulling import choose_platform
from lamina.spec import mediatype
from lamina.spec.manifest import Index
from lamina.spec.platform import Platform
from lamina.spec.reference import Reference
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] NAME[:TAG]"


def configure(parser: Parser) -> None:
    parser.add_argument("--platform", default="", help="of an index, the image for this platform")
    parser.switch("--full-ref", help="print NAME@DIGEST")
    parser.add_argument("name", metavar="NAME")


def run(args: argparse.Namespace, context: Context) -> int:
    reference = Reference.parse(args.name).with_default_tag()
    wanted = str(reference.digest or reference.tag)
    with context.registries() as registries:
        repository = registries.repository(reference)
        head = None if args.platform else repository.head(wanted)
        if head is None:
            resolved = repository.resolve(wanted)
            head = resolved.descriptor
            if args.platform and head.media_type in mediatype.INDEXES:
                index = Index.parse(resolved.raw, media_type=head.media_type)
                head = choose_platform(index.manifests, Platform.parse(args.platform))
    full = replace(reference, tag="", digest=head.digest)
    context.print(str(full) if args.full_ref else str(head.digest))
    return 0
