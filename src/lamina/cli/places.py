# SPDX-License-Identifier: Apache-2.0
"""Where `copy` and the cache commands read and write: what the texts of their places mean."""

from __future__ import annotations

from lamina.app.copying import TRANSPORTS, Place
from lamina.errors import Kind, LaminaError
from lamina.spec.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CACHE_PLACES = (
    "DIR (/..., ./...), NAME in a registry, oci:DIR[:NAME], oci-archive:FILE[:NAME], "
    "type=local,dest=DIR, type=oci,dest=FILE, type=registry,ref=NAME"
)
_CACHE_NAME = "latest"  # in layouts and archives, unless another is given
_CACHE_KINDS = ("docker", "oci", "oci-archive")
_CACHE_TYPES = {"local": "oci", "oci": "oci-archive", "registry": "docker"}


def parse_place(text: str, *, absolute: Callable[[str], str]) -> Place:
    """`NAME` or `docker://NAME`, `store:NAME`, `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]`,
    `docker-archive:FILE[:NAME]`.

    Raises:
        LaminaError: kind USAGE for an empty part, UNSUPPORTED for skopeo's other transports.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind == "docker" and rest.startswith("//"):
        return Place("docker", name=rest[2:])
    if colon and kind in {"containers-storage", "dir", "docker-daemon", "ostree", "sif", "tarball"}:
        raise LaminaError(
            f"{kind}: is not supported",
            kind=Kind.UNSUPPORTED,
            hint=f"places: NAME, {', '.join(f'{each}:...' for each in TRANSPORTS[1:])}",
        )
    if not colon or kind not in TRANSPORTS[1:]:
        return Place("docker", name=text)
    if not rest:
        raise LaminaError(f"invalid place {text!r}: nothing after the colon", kind=Kind.USAGE)
    if kind == "store":
        return Place(kind, name=rest)
    path, _, name = rest.partition(":")
    return Place(kind, absolute(path), name)


def parse_cache_place(text: str, *, absolute: Callable[[str], str]) -> Place:
    """Where caches go to or come from: a directory (`/...`, `./...`), a reference, a place as of
    `lamina copy` (`oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]`, `docker://NAME`), or
    `type=local,dest=DIR`, `type=oci,dest=FILE`, `type=registry,ref=NAME` (`src=` for `dest=`).

    Raises:
        LaminaError: USAGE, or UNSUPPORTED for places that cannot hold artifacts.
    """
    if text.startswith("type="):
        return _cache_place_of_fields(text, absolute)
    if text in {".", ".."} or text.startswith(("/", "./", "../")):
        return Place("oci", absolute(text), _CACHE_NAME)
    place = parse_place(text, absolute=absolute)
    if place.kind not in _CACHE_KINDS:
        raise LaminaError(
            f"caches cannot be kept in {place.kind}:",
            kind=Kind.UNSUPPORTED,
            hint="a directory, oci:DIR, oci-archive:FILE or a reference",
        )
    if place.kind == "docker":
        Reference.parse(place.name)
        return place
    return Place(place.kind, place.path, place.name or _CACHE_NAME)


def _cache_place_of_fields(text: str, absolute: Callable[[str], str]) -> Place:
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if key not in {"type", "dest", "src", "ref"} or not equals or key in fields:
            raise LaminaError(
                f"invalid field {part!r} in {text!r}",
                kind=Kind.USAGE,
                hint="type=local,dest=DIR; type=oci,dest=FILE; type=registry,ref=NAME",
            )
        fields[key] = value
    kind = _CACHE_TYPES.get(fields.pop("type"))
    if kind is None:
        raise LaminaError(
            f"unknown type in {text!r}", kind=Kind.UNSUPPORTED, hint="local, oci or registry"
        )
    wanted = "ref" if kind == "docker" else "dest"
    values = [value for key, value in fields.items() if (key == "ref") == (wanted == "ref")]
    if len(fields) != 1 or len(values) != 1 or not values[0]:
        raise LaminaError(f"{text!r} needs {wanted}= and nothing else", kind=Kind.USAGE)
    if kind == "docker":
        Reference.parse(values[0])
        return Place(kind, name=values[0])
    return Place(kind, absolute(values[0]), _CACHE_NAME)
