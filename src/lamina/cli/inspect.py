# SPDX-License-Identifier: Apache-2.0
"""Print details of images, containers, volumes and networks as JSON."""

from __future__ import annotations

from lamina.cli.inspection import (
    add_format,
    add_platform,
    add_size,
    container_document,
    image_document,
    network_document,
    show,
    volume_document,
)
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] NAME|ID [NAME|ID...]"
_TYPES = ("container", "image", "volume", "network")


def configure(parser: Parser) -> None:
    add_format(parser)
    parser.add_argument("--type", default="", help=f"only this kind: {', '.join(_TYPES)}")
    add_size(parser, help="for containers: add SizeRw and SizeRootFs")
    add_platform(parser, help="of an image for several, this one")
    parser.add_argument("names", nargs="+", metavar="NAME|ID")


def run(args: argparse.Namespace, context: Context) -> int:
    if args.type and args.type not in _TYPES:
        raise LaminaError(f'"{args.type}" is not a valid value for --type', kind=Kind.USAGE)
    return show(args.names, args.format, context, look=lambda name: _document(name, args, context))


def _document(name: str, args: argparse.Namespace, context: Context) -> dict[str, object]:
    """A container of this name, else an image, a network or a volume; `--type` says which is meant."""
    if args.type == "network":
        return network_document(name, context)
    if args.type == "volume":
        return volume_document(name, context)
    if args.type == "container" or (
        not args.type and context.store().documents.find("container", name)
    ):
        return container_document(name, context, size=args.size)
    from lamina.image.resolve import ImageNotFound
    from lamina.spec.reference import InvalidReference

    try:
        return image_document(name, context, platform=args.platform)
    except (ImageNotFound, InvalidReference) as error:
        if args.type:
            raise
        network = _network(name, context)
        if network is not None:
            return network
        try:
            return volume_document(name, context)
        except LaminaError as other:
            if other.kind is not Kind.NOT_FOUND:
                raise
        # a name that is no reference can still have been meant as a container's
        raise LaminaError(
            f"No such object: {name}",
            kind=Kind.NOT_FOUND,
            hint="'lamina images' and 'lamina ps -a' list what is here",
        ) from error


def _network(name: str, context: Context) -> dict[str, object] | None:
    try:
        return network_document(name, context)
    except LaminaError as error:
        if error.kind is Kind.NOT_FOUND:
            return None
        raise
