# SPDX-License-Identifier: Apache-2.0
"""Print details of images and containers as JSON."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context
    from lamina.store.ports import Store

USAGE = "[OPTIONS] NAME|ID [NAME|ID...]"
_TYPES = ("container", "image")


def configure(parser: Parser) -> None:
    parser.add_argument("-f", "--format", default="", help="'json' or a Go template")
    parser.add_argument("--type", default="", help="only this kind: container or image")
    parser.switch("-s", "--size", help="for containers: add SizeRw and SizeRootFs")
    parser.add_argument("--platform", default="", help="of an image for several, this one")
    parser.add_argument("names", nargs="+", metavar="NAME|ID")


def run(args: argparse.Namespace, context: Context) -> int:
    if args.type and args.type not in _TYPES:
        raise LaminaError(f'"{args.type}" is not a valid value for --type', kind=Kind.USAGE)
    found: list[dict[str, object]] = []
    missing: LaminaError | None = None
    for name in args.names:
        try:
            found.append(_inspect(name, args, context))
        except LaminaError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            missing = missing or error
    _print(found, args.format, context)
    if missing is not None:
        raise missing
    return 0


def _inspect(name: str, args: argparse.Namespace, context: Context) -> dict[str, object]:
    """A container of this name, else an image."""
    store = context.store()
    if args.type != "image" and store.documents.find("container", name):
        return _container(store, name, size=args.size)
    if args.type == "container":
        raise LaminaError(f"no such container: {name}", kind=Kind.NOT_FOUND)
    from lamina.app.images import inspect_image
    from lamina.cli.images import host_platform
    from lamina.image.view import PlatformNotFound
    from lamina.spec.platform import Platform

    platform = Platform.parse(args.platform) if args.platform else host_platform()
    try:
        return inspect_image(store, name, platform=platform, exact=bool(args.platform))
    except PlatformNotFound:
        raise
    except LaminaError as error:
        if error.kind in {Kind.NOT_FOUND, Kind.INVALID} and not args.type:
            # a name that is no reference can still have been meant as a container's
            raise LaminaError(
                f"no such object: {name}", kind=Kind.NOT_FOUND, hint=error.hint
            ) from error
        raise


def _container(store: Store, name: str, *, size: bool) -> dict[str, object]:
    from lamina.app.container_json import inspect
    from lamina.app.containers import find

    document = inspect(store, name)
    if size:
        from lamina.image.resolve import find_image

        written = find(store, name).size()
        image = find_image(store, str(document["Image"]))
        document |= {"SizeRw": written, "SizeRootFs": written + image.size}
    return document


def _print(found: list[dict[str, object]], format_text: str, context: Context) -> None:
    import json

    if format_text in {"", "json"}:
        context.print(json.dumps(found, indent=4 if not format_text else None, ensure_ascii=False))
        return
    from lamina.cli.format import parse_template

    template = parse_template(format_text.replace("\\n", "\n").replace("\\t", "\t"))
    for document in found:
        context.print(template.render(document))
