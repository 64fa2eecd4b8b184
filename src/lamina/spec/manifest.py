# SPDX-License-Identifier: Apache-2.0
"""Manifests and indexes, OCI and Docker schema 2 (image-spec manifest.md, image-index.md)."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.spec import mediatype
from lamina.spec.descriptor import Descriptor, annotations_from_json
from lamina.spec.digest import Digest
from lamina.spec.document import dump_bounded, parse_object
from lamina.spec.platform import Platform
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_ENTRIES = 10_000  # descriptors in one document; more is an attack, not an image
ATTESTATION = "vnd.docker.reference.type"  # BuildKit's annotation of entries about other entries
MAX_INDEX_DEPTH = 8  # indexes inside indexes; deeper is an attack


class InvalidManifest(LaminaError):
    kind = Kind.INVALID


class Manifest(Record):
    """An image manifest. `raw` are the bytes its digest is of; layers are lowest first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    raw: bytes
    annotations: tuple[tuple[str, str], ...] = ()
    artifact_type: str = ""
    subject: Descriptor | None = None

    @staticmethod
    def parse(raw: bytes, *, media_type: str = "") -> Manifest:
        """The manifest in `raw`; `media_type` is what the descriptor or header said it is.

        Raises:
            InvalidManifest: wrong schema version, wrong or contradicting media type, an index.
            InvalidDocument, InvalidDescriptor, InvalidDigest: malformed content.
        """
        document = parse_object(raw, what="manifest")
        found = _check_kind(
            document, media_type, mediatype.MANIFESTS, default=mediatype.OCI_MANIFEST
        )
        if "config" not in document:
            raise InvalidManifest("invalid manifest: config is missing")
        subject = document.get("subject")
        artifact_type = document.get("artifactType", "")
        return Manifest(
            found,
            Descriptor.from_json(document["config"]),
            _descriptors(document.get("layers"), "layers"),
            raw,
            annotations=annotations_from_json(document.get("annotations")),
            artifact_type=artifact_type if isinstance(artifact_type, str) else "",
            subject=Descriptor.from_json(subject) if subject is not None else None,
        )

    @staticmethod
    def make(
        config: Descriptor,
        layers: Sequence[Descriptor],
        *,
        media_type: str = mediatype.OCI_MANIFEST,
        annotations: Sequence[tuple[str, str]] = (),
    ) -> Manifest:
        """A new manifest with deterministic bytes."""
        document: dict[str, object] = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
        if annotations:
            document["annotations"] = dict(sorted(annotations))
        raw = dump_bounded(document, what="image's manifest")
        return Manifest.parse(raw, media_type=media_type)

    def descriptor(self, *, platform: Platform | None = None) -> Descriptor:
        """The descriptor of this manifest."""
        return Descriptor(self.media_type, Digest.of(self.raw), len(self.raw), platform=platform)


class Index(Record):
    """An image index or Docker manifest list; `raw` are the bytes its digest is of."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    raw: bytes
    annotations: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def parse(raw: bytes, *, media_type: str = "") -> Index:
        """The index in `raw`. Raises as `Manifest.parse`."""
        document = parse_object(raw, what="index")
        found = _check_kind(document, media_type, mediatype.INDEXES, default=mediatype.OCI_INDEX)
        return Index(
            found,
            _descriptors(document.get("manifests"), "manifests"),
            raw,
            annotations=annotations_from_json(document.get("annotations")),
        )

    @staticmethod
    def make(
        manifests: Sequence[Descriptor],
        *,
        media_type: str = mediatype.OCI_INDEX,
        annotations: Sequence[tuple[str, str]] = (),
    ) -> Index:
        """A new index with deterministic bytes."""
        document: dict[str, object] = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "manifests": [entry.to_json() for entry in manifests],
        }
        if annotations:
            document["annotations"] = dict(sorted(annotations))
        return Index.parse(dump_bounded(document, what="index"), media_type=media_type)

    def descriptor(self) -> Descriptor:
        """The descriptor of this index."""
        return Descriptor(self.media_type, Digest.of(self.raw), len(self.raw))

    def select(self, host: Platform) -> Descriptor | None:
        """The entry that `host` runs best; the first of equals; None if it runs none."""
        ranked = [
            (rank, position)
            for position, entry in enumerate(self.manifests)
            if entry.platform is not None and (rank := host.preference(entry.platform)) is not None
        ]
        if not ranked:
            return None
        return self.manifests[min(ranked)[1]]


def children(media_type: str, raw: bytes) -> tuple[Descriptor, ...]:
    """The descriptors a document points to: the content graph's edges, leaves first.

    A blob that is not a manifest or index has none. Raises as `Manifest.parse`.
    """
    if media_type in mediatype.MANIFESTS:
        manifest = Manifest.parse(raw, media_type=media_type)
        subject = (manifest.subject,) if manifest.subject is not None else ()
        return (*manifest.layers, manifest.config, *subject)
    if media_type in mediatype.INDEXES:
        return Index.parse(raw, media_type=media_type).manifests
    return ()


def _descriptors(value: object, field: str) -> tuple[Descriptor, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidManifest(f"invalid manifest: {field} is not a list")
    if len(value) > MAX_ENTRIES:
        raise InvalidManifest(f"invalid manifest: more than {MAX_ENTRIES} {field}")
    return tuple(Descriptor.from_json(entry) for entry in value)


def _check_kind(
    document: dict[str, object], declared: str, allowed: frozenset[str], *, default: str
) -> str:
    """The document's media type, refused if it could be read as two kinds (CVE-2021-41190)."""
    if document.get("schemaVersion") != 2:
        raise InvalidManifest(
            f"unsupported manifest schema version {document.get('schemaVersion')!r}"
        )
    inside = document.get("mediaType", "")
    if not isinstance(inside, str):
        raise InvalidManifest("invalid manifest: mediaType is not a string")
    if inside and declared and inside != declared:
        raise InvalidManifest(
            f"media type {inside!r} in the document, but declared as {declared!r}"
        )
    if "manifests" in document and ("layers" in document or "config" in document):
        raise InvalidManifest("invalid manifest: both an image manifest and an index")
    found = inside or declared or default
    if found not in allowed:
        raise InvalidManifest(f"unexpected media type {found!r}")
    return found
