# SPDX-License-Identifier: Apache-2.0
"""List images."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lamina.app.images import Filters, Listed
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] [REPOSITORY[:TAG]]"
HEADERS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "VirtualSize": "SIZE",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
    "Containers": "CONTAINERS",
}
_FILTERS = ("reference", "label", "dangling", "before", "since")


def configure(parser: Parser) -> None:
    parser.switch("-a", "--all", help="all images (lamina keeps no intermediate ones)")
    parser.switch("-q", "--quiet", help="only image ids")
    parser.switch("--no-trunc", help="do not shorten ids")
    parser.switch("--digests", help="show the digests of manifests")
    parser.add_argument(
        "-f",
        "--filter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"only images that match: {', '.join(_FILTERS)}",
    )
    parser.add_argument("--format", help="'table', 'table TEMPLATE', 'json', or a Go template")
    parser.refuse("--tree", why="it is not there yet")
    parser.add_argument("reference", nargs="?", default="", help="only this repository or name")


def run(args: argparse.Namespace, context: Context) -> int:
    from lamina.app.images import list_images
    from lamina.cli.format import listing

    filters = _filters(args.filter, args.reference)
    found = list_images(
        context.store(), platform=context.platform(), filters=filters, emit=context.notices
    )
    rows = [_row(listed, now=context.clock(), full=args.no_trunc) for listed in found]
    columns = ["Repository", "Tag", "ID", "CreatedSince", "Size"]
    if args.digests:
        columns.insert(2, "Digest")
    for line in listing(
        args.format, headers=HEADERS, default=columns, rows=rows, quiet="ID" if args.quiet else ""
    ):
        context.print(line)
    return 0


def _row(listed: Listed, *, now: float, full: bool) -> dict[str, object]:
    from lamina.cli.format import ago, go_time
    from lamina.image.sizes import human_size

    reference, image = listed.reference, listed.image
    size = human_size(listed.size)
    return {
        "Repository": reference.familiar_name() if reference is not None else "<none>",
        "Tag": reference.tag or "<none>" if reference is not None else "<none>",
        "Digest": str(image.target.digest),
        "ID": str(image.id) if full else image.id.short(),
        "CreatedSince": ago(now - listed.created) if listed.created else "N/A",
        "CreatedAt": go_time(listed.created),
        "Size": size,
        "VirtualSize": size,
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
        "Containers": "N/A",
    }


def _filters(texts: Sequence[str], reference: str) -> Filters:
    from lamina.app.images import Filters

    values: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise LaminaError(f"invalid filter {text!r}: expected KEY=VALUE", kind=Kind.USAGE)
        if key not in _FILTERS:
            raise LaminaError(
                f"invalid filter {key!r}",
                kind=Kind.USAGE,
                hint=f"filters: {', '.join(_FILTERS)}",
            )
        values.setdefault(key, []).append(value)
    for key in ("before", "since"):
        if len(values.get(key, [])) > 1:
            raise LaminaError(f"filter {key!r} is given twice", kind=Kind.USAGE)
    references = tuple(values.get("reference", [])) + ((reference,) if reference else ())
    return Filters(
        references=references,
        labels=tuple(_label(text) for text in values.get("label", [])),
        dangling=_dangling(values.get("dangling", [])),
        before=values.get("before", [""])[0],
        since=values.get("since", [""])[0],
    )


def _label(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    return name, value if equals else None


def _dangling(values: Sequence[str]) -> bool | None:
    found: bool | None = None
    for value in values:
        if value.lower() not in {"true", "false", "1", "0"}:
            raise LaminaError(f"invalid filter 'dangling={value}'", kind=Kind.USAGE)
        found = value.lower() in {"true", "1"}
    return found
