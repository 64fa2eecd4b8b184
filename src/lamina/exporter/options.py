# SPDX-License-Identifier: Apache-2.0
"""`--output` as Docker writes it: `type=oci,dest=x.tar`, a directory, or `-`. Pure.

Every attribute works or is refused by name; docs/adr/0044-exporters.md lists them.
"""

from __future__ import annotations

from lamina.errors import Kind
from lamina.exporter.ports import Output
from lamina.exporter.table import TABLE
from lamina.spec.attributes import Attributes, InvalidAttribute, split_fields
from lamina.spec.platform import Platform
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lamina.exporter.table import Row


def _true(attributes: Attributes, name: str) -> None:
    if not attributes.boolean(name, default=True):
        raise InvalidAttribute(
            f"output {name}=false is not supported: an image is always stored",
            kind=Kind.UNSUPPORTED,
            hint="use type=oci or type=docker to write an archive",
        )


READERS: dict[str, Callable[[Attributes, str], object]] = {
    "text": lambda attributes, name: attributes[name],
    "names": lambda attributes, name: tuple(filter(None, attributes[name].split(","))),
    "boolean": lambda attributes, name: attributes.boolean(name, default=False),
    "true": _true,
    "compression": lambda attributes, _: attributes.compression(),
    "compression-level": lambda attributes, _: attributes.compression_level(),
}


def parse_output(text: str) -> Output:
    """The output that `text` asks for; `DIR` means `type=local`, `-` means `type=tar,dest=-`.

    `type=docker` without `dest` is `type=image`, as it loads the image into Docker's store;
    `type=registry` is `type=image,push=true`.

    Raises:
        InvalidAttribute: kind USAGE (unknown type or attribute, bad value, missing dest) or
            UNSUPPORTED (things lamina does not do).
    """
    if text == "-":
        return Output("tar", "-")
    fields = split_fields("output", text)
    if len(fields) == 1 and "=" not in fields[0]:
        if not fields[0]:
            raise InvalidAttribute("invalid output: it is empty")
        return Output("local", fields[0])
    return _checked(text, Attributes("output", text, fields))


def _checked(text: str, attributes: Attributes) -> Output:
    type = attributes.pop("type", "")
    if type == "registry":
        type = "image"
        attributes.setdefault("push", "true")
    row = TABLE.get(type)
    if row is None:
        raise InvalidAttribute(
            f"invalid output {text!r}: unknown type {type!r}"
            if type
            else f"invalid output {text!r}: type is missing",
            hint=f"types: {', '.join(TABLE)}",
        )
    annotations = _annotations(type, row, attributes)
    attributes.refuse_others(type, frozenset(option.name for option in row.options))
    values: dict[str, Any] = {  # each field has the type that its reader gives
        option.field: READERS[option.type](attributes, option.name)
        for option in row.options
        if option.name in attributes
    }
    values.pop("", None)
    output = replace(
        Output(type),
        annotations=tuple((name, value) for at, name, value in annotations if at == "manifest"),
        placed_annotations=tuple(placed for placed in annotations if placed[0] != "manifest"),
        **values,
    )
    _check_mediatypes(output)
    if type == "docker" and not output.dest:
        return replace(output, type="image")
    return replace(output, dest=_destination(row, output))


def _annotations(type: str, row: Row, attributes: Attributes) -> tuple[tuple[str, str, str], ...]:
    """`annotation[-PLACE][[PLATFORM]].KEY=VALUE`, taken out of `attributes`: (place, key, value)."""
    found: dict[tuple[str, str], str] = {}
    for key in [key for key in attributes if key.startswith("annotation")]:
        if not row.is_image:
            raise InvalidAttribute(
                f"output type={type} does not support {key!r}", kind=Kind.UNSUPPORTED
            )
        where, _, name = key.partition(".")
        if "[" in where:
            where, name = key[: key.find("]") + 1], key[key.find("]") + 1 :].removeprefix(".")
        place = annotation_place(where.removeprefix("annotation").removeprefix("-") or "manifest")
        if not name:
            raise InvalidAttribute(f"invalid output: {where}. needs a name")
        found[place, name] = attributes.pop(key)
    return tuple((place, name, value) for (place, name), value in sorted(found.items()))


def annotation_place(text: str) -> str:
    """Where annotations go: `manifest`, `manifest-descriptor`, `index`, `index-descriptor`; the
    first two may be of one platform, `manifest[linux/arm64]`, which comes out normalised.

    Raises:
        InvalidAttribute: another place, or a platform that is none.
    """
    kind, bracket, rest = text.partition("[")
    if kind not in {"manifest", "manifest-descriptor", "index", "index-descriptor"}:
        raise InvalidAttribute(f"unknown annotation type {kind!r}")
    if not bracket:
        return kind
    if not rest.endswith("]") or kind.startswith("index"):
        raise InvalidAttribute(f"invalid annotation type {text!r}")
    return f"{kind}[{Platform.parse(rest[:-1])}]"


def _destination(row: Row, output: Output) -> str:
    is_directory = row.dest == "directory" or not output.tar
    if is_directory and output.dest in {"", "-"}:
        raise InvalidAttribute(
            f"output type={output.type} cannot be written to standard output"
            if output.dest
            else f"output type={output.type} needs dest=DIRECTORY"
        )
    return output.dest or ("-" if row.dest else "")


def _check_mediatypes(output: Output) -> None:
    if not output.oci_mediatypes and output.compression == "zstd":
        raise InvalidAttribute(
            "output compression=zstd needs oci-mediatypes=true: Docker's media types have no zstd",
            kind=Kind.UNSUPPORTED,
        )
