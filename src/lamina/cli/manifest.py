# SPDX-License-Identifier: Apache-2.0
"""Look at manifests in registries, and make manifest lists: inspect, create, annotate, push, rm."""

from __future__ import annotations

import json

from lamina.app.artifacts import (
    annotate_list,
    create_list,
    has_list,
    list_index,
    push_list,
    read_list,
    remove_list,
)
from lamina.cli.view import make_view
from lamina.errors import Kind, LaminaError
from lamina.spec.platform import Platform, normalise
from lamina.spec.reference import Reference
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.app.artifacts import Entry
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "inspect NAME | create LIST IMAGE... | annotate LIST IMAGE | push LIST | rm LIST..."
_VERBS = ("inspect", "create", "annotate", "push", "rm")


def configure(parser: Parser) -> None:
    parser.switch("--raw", help="inspect: the bytes as the registry has them")
    parser.switch("-v", "--verbose", help="inspect: the descriptor too")
    parser.switch("-a", "--amend", help="create: extend a list that exists")
    parser.switch("-p", "--purge", help="push: forget the list here")
    parser.add_argument("--os", default="", help="annotate: operating system")
    parser.add_argument("--arch", default="", help="annotate: architecture")
    parser.add_argument("--variant", default="", help="annotate: variant of the architecture")
    parser.add_argument("--os-version", default="", help="annotate: version of the system")
    parser.refuse("--os-features", why="lamina's descriptors have none")
    parser.refuse("--insecure", why="mark the registry insecure in registries.conf")
    parser.add_argument("verb", choices=_VERBS)
    parser.add_argument("names", nargs="+", metavar="NAME")


def run(args: argparse.Namespace, context: Context) -> int:
    count = len(args.names)
    if args.verb in {"inspect", "push"} and count != 1:
        raise LaminaError(f"manifest {args.verb} takes one name", kind=Kind.USAGE)
    if args.verb == "annotate" and count != 2:
        raise LaminaError("manifest annotate takes a list and an image", kind=Kind.USAGE)
    if args.verb == "create" and count < 2:
        raise LaminaError("manifest create takes a list and images", kind=Kind.USAGE)
    match args.verb:
        case "inspect":
            return _inspect(args, context)
        case "annotate":
            return _annotate(args, context)
        case "rm":
            for name in args.names:
                remove_list(context.store(), name)
            return 0
        case _:
            return _create_or_push(args, context)


def _inspect(args: argparse.Namespace, context: Context) -> int:
    name = args.names[0]
    if has_list(context.store(), name):
        index = list_index(read_list(context.store(), name))
        descriptor, raw = index.descriptor(), index.raw
    else:
        reference = Reference.parse(name).with_default_tag()
        with context.registries() as registries:
            resolved = registries.repository(reference).resolve(
                str(reference.digest or reference.tag)
            )
        descriptor, raw = resolved.descriptor, resolved.raw
    if args.raw:
        context.stdout.flush()
        context.stdout.buffer.write(raw)
        return 0
    document = json.loads(raw)
    if args.verbose:
        document = {"Ref": name, "Descriptor": descriptor.to_json(), "Manifest": document}
    context.print(json.dumps(document, indent=3))
    return 0


def _create_or_push(args: argparse.Namespace, context: Context) -> int:
    view = make_view("auto", context, quiet=False, builds=False)
    try:
        with context.registries() as registries:
            if args.verb == "create":
                name, *images = args.names
                made = create_list(context.store(), registries, name, images, amend=args.amend)
                said = f"Created manifest list {made}"
            else:
                digest = push_list(
                    context.store(), registries, args.names[0], work=context.work(view)
                )
                said = str(digest)
                if args.purge:
                    remove_list(context.store(), args.names[0])
    finally:
        view.close()
    context.print(said)
    return 0


def _annotate(args: argparse.Namespace, context: Context) -> int:
    if not (args.os or args.arch or args.variant or args.os_version):
        raise LaminaError("manifest annotate needs --os, --arch, ...", kind=Kind.USAGE)

    def change(entry: Entry) -> Entry:
        now = entry.descriptor.platform or Platform("linux", "amd64")
        changed = normalise(
            args.os or now.os, args.arch or now.architecture, args.variant or now.variant
        )
        changed = replace(changed, os_version=args.os_version or now.os_version)
        return replace(entry, descriptor=replace(entry.descriptor, platform=changed))

    annotate_list(context.store(), args.names[0], args.names[1], change)
    return 0
