# SPDX-License-Identifier: Apache-2.0
"""`--output` as Docker writes it: `type=oci,dest=x.tar`, a directory, or `-`. Pure.

Every attribute works or is refused by name; docs/adr/0044-exporters.md lists them.
"""

from __future__ import annotations

from lamina.errors import Kind
from lamina.exporter.output import Output
from lamina.spec.attributes import Attributes, InvalidAttribute, split_fields

TYPES = ("image", "oci", "docker", "tar", "local", "cacheonly")
_IMAGE_ATTRIBUTES = frozenset(
    {"name", "compression", "compression-level", "force-compression", "oci-mediatypes"}
)
_ALLOWED: dict[str, frozenset[str]] = {
    "image": _IMAGE_ATTRIBUTES | {"push", "unpack", "store"},
    "oci": _IMAGE_ATTRIBUTES | {"dest", "tar"},
    "docker": _IMAGE_ATTRIBUTES | {"dest"},
    "tar": frozenset({"dest", "platform-split"}),
    "local": frozenset({"dest", "platform-split"}),
    "cacheonly": frozenset(),
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
    if type not in _ALLOWED:
        raise InvalidAttribute(
            f"invalid output {text!r}: unknown type {type!r}"
            if type
            else f"invalid output {text!r}: type is missing",
            hint=f"types: {', '.join(TYPES)}",
        )
    annotations = _annotations(type, attributes)
    attributes.refuse_others(type, _ALLOWED[type])
    _refuse(attributes)
    if type == "docker" and not attributes.get("dest"):
        type = "image"
    names = tuple(name for name in attributes.get("name", "").split(",") if name)
    split = attributes.boolean("platform-split", default=False)
    return Output(
        type,
        _destination(type, attributes),
        names,
        attributes.compression(),
        attributes.compression_level(),
        attributes.boolean("force-compression", default=False),
        _mediatypes(attributes),
        tuple((name, value) for place, name, value in annotations if place == "manifest"),
        attributes.boolean("tar", default=True),
        attributes.boolean("unpack", default=False),
        split if "platform-split" in attributes else None,
        attributes.boolean("push", default=False),
        tuple(placed for placed in annotations if placed[0] != "manifest"),
    )


def _annotations(type: str, attributes: Attributes) -> tuple[tuple[str, str, str], ...]:
    """`annotation[-PLACE][[PLATFORM]].KEY=VALUE`, taken out of `attributes`: (place, key, value)."""
    found: dict[tuple[str, str], str] = {}
    for key in [key for key in attributes if key.startswith("annotation")]:
        if type not in {"image", "oci", "docker"}:
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
    from lamina.spec.platform import Platform

    return f"{kind}[{Platform.parse(rest[:-1])}]"


def refuse_places(output: Output) -> None:
    """Raise for annotations that only an image for several platforms has room for."""
    for place, _, _ in output.placed_annotations:
        raise InvalidAttribute(
            f"{place} annotations are not supported for a single platform export",
            kind=Kind.UNSUPPORTED,
            hint="only manifest annotations are",
        )


def _refuse(attributes: Attributes) -> None:
    if not attributes.boolean("store", default=True):
        raise InvalidAttribute(
            "output store=false is not supported: an image is always stored",
            kind=Kind.UNSUPPORTED,
            hint="use type=oci or type=docker to write an archive",
        )


def _destination(type: str, attributes: Attributes) -> str:
    dest = attributes.get("dest", "")
    tar = attributes.boolean("tar", default=True)
    if type in {"image", "cacheonly"}:
        return ""
    if not dest:
        if type == "local" or not tar:
            raise InvalidAttribute(f"output type={type} needs dest=DIRECTORY")
        return "-"
    if dest == "-" and (type == "local" or not tar):
        raise InvalidAttribute(f"output type={type} cannot be written to standard output")
    return dest


def _mediatypes(attributes: Attributes) -> bool:
    oci = attributes.boolean("oci-mediatypes", default=True)
    if not oci and attributes.compression() == "zstd":
        raise InvalidAttribute(
            "output compression=zstd needs oci-mediatypes=true: Docker's media types have no zstd",
            kind=Kind.UNSUPPORTED,
        )
    return oci
