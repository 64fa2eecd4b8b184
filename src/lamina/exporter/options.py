# SPDX-License-Identifier: Apache-2.0
"""`--output` as Docker writes it: `type=oci,dest=x.tar`, a directory, or `-`. Pure.

Every attribute works or is refused by name; docs/adr/0044-exporters.md lists them.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.exporter.output import Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

TYPES = ("image", "oci", "docker", "tar", "local", "cacheonly")
COMPRESSIONS = ("uncompressed", "gzip", "zstd")
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
_BOOLEANS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


class InvalidOutput(LaminaError):
    kind = Kind.USAGE


def parse_output(text: str) -> Output:
    """The output that `text` asks for; `DIR` means `type=local`, `-` means `type=tar,dest=-`.

    `type=docker` without `dest` is `type=image`, as it loads the image into Docker's store;
    `type=registry` is `type=image,push=true`.

    Raises:
        InvalidOutput: kind USAGE (unknown type or attribute, bad value, missing dest) or
            UNSUPPORTED (things lamina does not do).
    """
    if text == "-":
        return Output("tar", "-")
    fields = _fields(text)
    if len(fields) == 1 and "=" not in fields[0]:
        if not fields[0]:
            raise InvalidOutput("invalid output: it is empty")
        return Output("local", fields[0])
    attributes: dict[str, str] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals or not key:
            raise InvalidOutput(f"invalid output {text!r}: expected key=value, got {field!r}")
        if key in attributes:
            raise InvalidOutput(f"invalid output {text!r}: {key} is given twice")
        attributes[key] = value
    return _checked(text, attributes)


def _fields(text: str) -> list[str]:
    """The comma-separated fields; a field in double quotes may hold commas (CSV)."""
    if '"' not in text:
        return text.split(",")
    import csv

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise InvalidOutput(f"invalid output {text!r}: {error}") from error
    return rows[0] if rows else [""]


def _checked(text: str, attributes: dict[str, str]) -> Output:
    type = attributes.pop("type", "")
    if type == "registry":
        type = "image"
        attributes.setdefault("push", "true")
    if type not in _ALLOWED:
        raise InvalidOutput(
            f"invalid output {text!r}: unknown type {type!r}"
            if type
            else f"invalid output {text!r}: type is missing",
            hint=f"types: {', '.join(TYPES)}",
        )
    annotations = _annotations(type, attributes)
    for key in attributes:
        if key not in _ALLOWED[type]:
            raise InvalidOutput(
                f"output type={type} does not support {key!r}",
                kind=Kind.UNSUPPORTED,
                hint=f"supported: {', '.join(sorted(_ALLOWED[type]))}",
            )
    _refuse(attributes)
    if type == "docker" and not attributes.get("dest"):
        type = "image"
    names = tuple(name for name in attributes.get("name", "").split(",") if name)
    split = _boolean(attributes, "platform-split", default=False)
    return Output(
        type,
        _destination(type, attributes),
        names,
        _compression(attributes),
        _level(attributes),
        _boolean(attributes, "force-compression", default=False),
        _mediatypes(attributes),
        tuple((name, value) for place, name, value in annotations if place == "manifest"),
        _boolean(attributes, "tar", default=True),
        _boolean(attributes, "unpack", default=False),
        split if "platform-split" in attributes else None,
        _boolean(attributes, "push", default=False),
        tuple(placed for placed in annotations if placed[0] != "manifest"),
    )


def _annotations(type: str, attributes: dict[str, str]) -> tuple[tuple[str, str, str], ...]:
    """`annotation[-PLACE][[PLATFORM]].KEY=VALUE`, taken out of `attributes`: (place, key, value)."""
    found: dict[tuple[str, str], str] = {}
    for key in [key for key in attributes if key.startswith("annotation")]:
        if type not in {"image", "oci", "docker"}:
            raise InvalidOutput(
                f"output type={type} does not support {key!r}", kind=Kind.UNSUPPORTED
            )
        where, _, name = key.partition(".")
        if "[" in where:
            where, name = key[: key.find("]") + 1], key[key.find("]") + 1 :].removeprefix(".")
        place = annotation_place(where.removeprefix("annotation").removeprefix("-") or "manifest")
        if not name:
            raise InvalidOutput(f"invalid output: {where}. needs a name")
        found[place, name] = attributes.pop(key)
    return tuple((place, name, value) for (place, name), value in sorted(found.items()))


def annotation_place(text: str) -> str:
    """Where annotations go: `manifest`, `manifest-descriptor`, `index`, `index-descriptor`; the
    first two may be of one platform, `manifest[linux/arm64]`, which comes out normalised.

    Raises:
        InvalidOutput: another place, or a platform that is none.
    """
    kind, bracket, rest = text.partition("[")
    if kind not in {"manifest", "manifest-descriptor", "index", "index-descriptor"}:
        raise InvalidOutput(f"unknown annotation type {kind!r}")
    if not bracket:
        return kind
    if not rest.endswith("]") or kind.startswith("index"):
        raise InvalidOutput(f"invalid annotation type {text!r}")
    from lamina.spec.platform import Platform

    return f"{kind}[{Platform.parse(rest[:-1])}]"


def refuse_places(output: Output) -> None:
    """Raise for annotations that only an image for several platforms has room for."""
    for place, _, _ in output.placed_annotations:
        raise InvalidOutput(
            f"{place} annotations are not supported for a single platform export",
            kind=Kind.UNSUPPORTED,
            hint="only manifest annotations are",
        )


def _refuse(attributes: Mapping[str, str]) -> None:
    if not _boolean(attributes, "store", default=True):
        raise InvalidOutput(
            "output store=false is not supported: an image is always stored",
            kind=Kind.UNSUPPORTED,
            hint="use type=oci or type=docker to write an archive",
        )


def _destination(type: str, attributes: Mapping[str, str]) -> str:
    dest = attributes.get("dest", "")
    tar = _boolean(attributes, "tar", default=True)
    if type in {"image", "cacheonly"}:
        return ""
    if not dest:
        if type == "local" or not tar:
            raise InvalidOutput(f"output type={type} needs dest=DIRECTORY")
        return "-"
    if dest == "-" and (type == "local" or not tar):
        raise InvalidOutput(f"output type={type} cannot be written to standard output")
    return dest


def _compression(attributes: Mapping[str, str]) -> str:
    compression = attributes.get("compression", "gzip")
    if compression not in COMPRESSIONS:
        raise InvalidOutput(
            f"output compression={compression} is not supported",
            kind=Kind.UNSUPPORTED,
            hint=f"supported: {', '.join(COMPRESSIONS)}",
        )
    return compression


def _level(attributes: Mapping[str, str]) -> int | None:
    text = attributes.get("compression-level", "")
    if not text:
        return None
    highest = {"uncompressed": 0, "gzip": 9, "zstd": 22}[_compression(attributes)]
    if not (text.isascii() and text.isdigit()) or int(text) > highest:
        raise InvalidOutput(
            f"invalid output: compression-level={text} is not a number from 0 to {highest}"
        )
    return int(text)


def _mediatypes(attributes: Mapping[str, str]) -> bool:
    oci = _boolean(attributes, "oci-mediatypes", default=True)
    if not oci and _compression(attributes) == "zstd":
        raise InvalidOutput(
            "output compression=zstd needs oci-mediatypes=true: Docker's media types have no zstd",
            kind=Kind.UNSUPPORTED,
        )
    return oci


def _boolean(attributes: Mapping[str, str], key: str, *, default: bool) -> bool:
    text = attributes.get(key)
    if text is None:
        return default
    value = _BOOLEANS.get(text.lower())
    if value is None:
        raise InvalidOutput(f"invalid output: {key}={text} is not a boolean")
    return value
