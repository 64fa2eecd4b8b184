# SPDX-License-Identifier: Apache-2.0
"""Descriptors: a typed, sized, verifiable pointer to a blob (image-spec descriptor.md)."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.spec.digest import Digest
from lamina.spec.platform import InvalidPlatform, Platform, normalise
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SIZE = 2**63 - 1  # int64 of the specification


class InvalidDescriptor(LaminaError):
    kind = Kind.INVALID


class Descriptor(Record):
    """What a blob is. `size` in bytes; `annotations` sorted by key; `artifact_type` may be empty."""

    media_type: str
    digest: Digest
    size: int
    annotations: tuple[tuple[str, str], ...] = ()
    platform: Platform | None = None
    artifact_type: str = ""

    @staticmethod
    def of(media_type: str, data: bytes) -> Descriptor:
        """The descriptor of `data`."""
        return Descriptor(media_type, Digest.of(data), len(data))

    def annotation(self, key: str) -> str | None:
        """The value of one annotation."""
        return dict(self.annotations).get(key)

    def to_json(self) -> dict[str, object]:
        """The JSON object, fields in the specification's order."""
        document: dict[str, object] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.platform is not None:
            document["platform"] = platform_to_json(self.platform)
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        return document

    @staticmethod
    def from_json(document: object) -> Descriptor:
        """The descriptor in a parsed JSON object; fields not known to lamina are left out.

        Raises:
            InvalidDescriptor: not an object, or a field is missing, malformed or negative.
            InvalidDigest: the digest is malformed.
        """
        if not isinstance(document, dict):
            raise InvalidDescriptor("invalid descriptor: not a JSON object")
        media_type = document.get("mediaType", "")
        size = document.get("size")
        digest = document.get("digest")
        if not isinstance(media_type, str):
            raise InvalidDescriptor("invalid descriptor: mediaType is not a string")
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_SIZE:
            # a negative size makes naive readers loop for ever
            raise InvalidDescriptor(f"invalid descriptor: size {size!r}")
        if not isinstance(digest, str):
            raise InvalidDescriptor("invalid descriptor: digest is not a string")
        artifact_type = document.get("artifactType", "")
        return Descriptor(
            media_type,
            Digest.parse(digest),
            size,
            annotations=annotations_from_json(document.get("annotations")),
            platform=_platform_from_json(document.get("platform")),
            artifact_type=artifact_type if isinstance(artifact_type, str) else "",
        )


def annotations_from_json(value: object) -> tuple[tuple[str, str], ...]:
    """Annotations sorted by key.

    Raises:
        InvalidDescriptor: not an object of strings.
    """
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise InvalidDescriptor("invalid annotations: not a JSON object")
    for key, text in value.items():
        if not isinstance(text, str):
            raise InvalidDescriptor(f"invalid annotation {key!r}: not a string")
    return annotations_of(value)


def annotations_of(mapping: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The mapping as a sorted tuple, the form in which records keep annotations."""
    return tuple(sorted(mapping.items()))


def platform_to_json(platform: Platform) -> dict[str, object]:
    """The JSON object of image-index.md §platform."""
    document: dict[str, object] = {"architecture": platform.architecture, "os": platform.os}
    if platform.os_version:
        document["os.version"] = platform.os_version
    if platform.variant:
        document["variant"] = platform.variant
    return document


def _platform_from_json(value: object) -> Platform | None:
    """None if absent, or not a platform lamina knows (attestations use unknown/unknown)."""
    if not isinstance(value, dict):
        return None
    os, architecture = value.get("os"), value.get("architecture")
    variant, version = value.get("variant", ""), value.get("os.version", "")
    if not isinstance(os, str) or not isinstance(architecture, str) or not isinstance(variant, str):
        return None
    try:
        platform = normalise(os, architecture, variant)
    except InvalidPlatform:
        return None
    if isinstance(version, str) and version:
        return Platform(platform.os, platform.architecture, platform.variant, version)
    return platform
