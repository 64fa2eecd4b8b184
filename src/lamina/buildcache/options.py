# SPDX-License-Identifier: Apache-2.0
"""`--cache-from` and `--cache-to` as buildx writes them: `type=registry,ref=...`. Pure.

Every attribute works or is refused by name; docs/adr/0087 lists them.
"""

from __future__ import annotations

from lamina.errors import Kind
from lamina.spec.attributes import Attributes, InvalidAttribute, split_fields
from lamina.spec.digest import Digest
from lamina.spec.reference import Reference
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_TAG = "latest"
_OTHER_TYPES = {
    "gha": "GitHub's cache service is not supported: use type=registry, or type=local and actions/cache",
    "s3": "object storage is not supported: use type=registry or type=local",
    "azblob": "object storage is not supported: use type=registry or type=local",
}
_SENT = frozenset(
    {"mode", "compression", "compression-level", "force-compression", "image-manifest"}
    | {"oci-mediatypes", "ignore-error"}
)
_FROM: dict[str, frozenset[str]] = {
    "registry": frozenset({"ref"}),
    "local": frozenset({"src", "digest", "tag"}),
}
_TO: dict[str, frozenset[str]] = {
    "registry": _SENT | {"ref"},
    "local": _SENT | {"dest", "tag"},
    "inline": frozenset({"mode"}),
}


class CacheFrom(Record):
    """Where cache is read. `ref` is a reference as typed, `src` a directory; `digest` and `tag` say
    which cache of the directory is meant.
    """

    type: str
    ref: str = ""
    src: str = ""
    tag: str = DEFAULT_TAG
    digest: str = ""

    def __str__(self) -> str:
        return self.ref or self.src


class CacheTo(Record):
    """Where cache is written, and how. `max_mode` exports every step, else those of the result.

    `level` None is the compression's own; without `force_compression` a blob that exists is taken
    as it is. With `image_manifest` the document is an OCI manifest, else an index
    (`oci_mediatypes` False: Docker's). `ignore_error` makes a failed export a warning.
    """

    type: str
    ref: str = ""
    dest: str = ""
    tag: str = DEFAULT_TAG
    max_mode: bool = False
    compression: str = "gzip"
    level: int | None = None
    force_compression: bool = False
    image_manifest: bool = True
    oci_mediatypes: bool = True
    ignore_error: bool = False

    def __str__(self) -> str:
        return self.ref or self.dest or self.type


def parse_cache_from(text: str) -> tuple[CacheFrom, ...]:
    """The sources in one value of the flag; plain references, split by commas, are registries.

    Raises:
        InvalidAttribute: kind USAGE, or UNSUPPORTED for what lamina does not do.
    """
    found = []
    for attributes in _attributes("--cache-from", text):
        type = _checked("--cache-from", attributes, _FROM)
        if type == "registry":
            found.append(CacheFrom(type, ref=_reference("--cache-from", attributes)))
            continue
        if not attributes.get("src"):
            raise InvalidAttribute("--cache-from type=local needs src=DIRECTORY")
        digest = attributes.get("digest", "")
        if digest:
            Digest.parse(digest)
        tag = attributes.get("tag") or DEFAULT_TAG
        found.append(CacheFrom(type, src=attributes["src"], tag=tag, digest=digest))
    return tuple(found)


def parse_cache_to(text: str) -> tuple[CacheTo, ...]:
    """The targets in one value of the flag. Raises as `parse_cache_from`."""
    return tuple(_target(attributes) for attributes in _attributes("--cache-to", text))


def _target(attributes: Attributes) -> CacheTo:
    flag = "--cache-to"
    type = _checked(flag, attributes, _TO)
    mode = attributes.get("mode") or "min"
    if mode not in {"min", "max"}:
        raise InvalidAttribute(f"invalid {flag}: mode={mode} is neither min nor max")
    if type == "inline":
        if mode == "max":
            raise InvalidAttribute(
                f"{flag} type=inline does not support mode=max",
                kind=Kind.UNSUPPORTED,
                hint="an image holds the layers of its result only: use type=registry",
            )
        return CacheTo(type)
    ref = _reference(flag, attributes) if type == "registry" else ""
    if type == "local" and not attributes.get("dest"):
        raise InvalidAttribute(f"{flag} type=local needs dest=DIRECTORY")
    image_manifest = attributes.boolean("image-manifest", default=True)
    oci_mediatypes = attributes.boolean("oci-mediatypes", default=True)
    if not oci_mediatypes and image_manifest and "image-manifest" in attributes:
        raise InvalidAttribute(
            f"{flag} image-manifest=true needs oci-mediatypes=true", kind=Kind.UNSUPPORTED
        )
    return CacheTo(
        type,
        ref=ref,
        dest=attributes.get("dest", ""),
        tag=attributes.get("tag") or DEFAULT_TAG,
        max_mode=mode == "max",
        compression=attributes.compression(),
        level=attributes.compression_level(),
        force_compression=attributes.boolean("force-compression", default=False),
        image_manifest=image_manifest and oci_mediatypes,
        oci_mediatypes=oci_mediatypes,
        ignore_error=attributes.boolean("ignore-error", default=False),
    )


def _attributes(flag: str, text: str) -> list[Attributes]:
    """The `key=value` fields as one mapping, or one mapping for each plain reference."""
    fields = split_fields(flag, text)
    if all("=" not in field for field in fields):
        if not all(fields):
            raise InvalidAttribute(f"invalid {flag}: it is empty")
        return [Attributes(flag, text, ("type=registry", f"ref={each}")) for each in fields]
    return [Attributes(flag, text, fields)]


def _checked(flag: str, attributes: Attributes, allowed: Mapping[str, frozenset[str]]) -> str:
    """The type, taken out; refuses types and attributes by name."""
    type = attributes.pop("type", "")
    if type in _OTHER_TYPES:
        raise InvalidAttribute(f"{flag} type={type}: {_OTHER_TYPES[type]}", kind=Kind.UNSUPPORTED)
    if type not in allowed:
        what = f"unknown type {type!r}" if type else "type is missing"
        if flag == "--cache-from" and type == "inline":
            what = "type=inline is for --cache-to; read it with type=registry,ref=IMAGE"
        raise InvalidAttribute(f"invalid {flag}: {what}", hint=f"types: {', '.join(allowed)}")
    attributes.refuse_others(type, allowed[type])
    return type


def _reference(flag: str, attributes: Attributes) -> str:
    ref = attributes.get("ref", "")
    if not ref:
        raise InvalidAttribute(f"{flag} type=registry needs ref=REFERENCE")
    found = Reference.parse(ref)
    if flag == "--cache-to" and found.digest is not None:
        raise InvalidAttribute(f"{flag} ref={ref}: nothing can be pushed to a digest")
    return ref
