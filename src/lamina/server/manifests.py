# SPDX-License-Identifier: Apache-2.0
"""Pushed manifests: what they need, what they refer to, and the referrers document. Pure.

Source: distribution-spec spec.md §Pushing Manifests, §Listing Referrers; image-spec manifest.md.
"""

from __future__ import annotations

from lamina.errors import LaminaError
from lamina.server.ports import NewManifest
from lamina.server.wire import Refusal
from lamina.spec import mediatype
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import Digest
from lamina.spec.document import dump, parse_object
from lamina.spec.manifest import Index, Manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.server.ports import Referrer

# Clients fetch these from elsewhere; image-spec layer.md §Non-Distributable Layers.
_ELSEWHERE = frozenset({mediatype.DOCKER_FOREIGN_LAYER, mediatype.OCI_NONDISTRIBUTABLE}) | {
    f"{mediatype.OCI_NONDISTRIBUTABLE}+{suffix}" for suffix in ("gzip", "zstd")
}
_SCHEMA_1 = (mediatype.DOCKER_MANIFEST_V1, mediatype.DOCKER_MANIFEST_V1_SIGNED)


def parse(raw: bytes, *, content_type: str, digest: Digest | None) -> NewManifest:
    """The manifest in a PUT's body; `digest` is the one in the path, if it has one.

    Raises:
        Refusal: DIGEST_INVALID, MANIFEST_INVALID.
    """
    found = Digest.of(raw, algorithm=digest.algorithm if digest is not None else "sha256")
    if digest is not None and found != digest:
        raise Refusal(
            "DIGEST_INVALID",
            "the digest of the manifest is not the digest in the path",
            detail={"digest": str(digest), "found": str(found)},
        )
    media_type = content_type.partition(";")[0].strip().lower()
    try:
        declared = media_type or str(parse_object(raw, what="manifest").get("mediaType", ""))
        if declared in mediatype.MANIFESTS:
            return _image(Manifest.parse(raw, media_type=declared), found)
        if declared in mediatype.INDEXES:
            return _index(Index.parse(raw, media_type=declared), found)
    except LaminaError as error:
        raise Refusal("MANIFEST_INVALID", error.what) from error
    if declared in _SCHEMA_1:
        raise Refusal("MANIFEST_INVALID", "manifests of schema 1 are not supported")
    raise Refusal("MANIFEST_INVALID", f"unknown manifest media type {declared[:200]!r}")


def referrers_index(referrers: Sequence[Referrer]) -> bytes:
    """The index that lists them."""
    entries: list[dict[str, object]] = []
    for referrer in referrers:
        entry: dict[str, object] = {
            "mediaType": referrer.media_type,
            "digest": referrer.digest,
            "size": referrer.size,
        }
        if referrer.artifact_type:
            entry["artifactType"] = referrer.artifact_type
        if referrer.annotations:
            entry["annotations"] = dict(referrer.annotations)
        entries.append(entry)
    return dump({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": entries})


def _image(manifest: Manifest, digest: Digest) -> NewManifest:
    blobs = [manifest.config, *manifest.layers]
    return NewManifest(
        digest,
        manifest.media_type,
        manifest.raw,
        blobs=tuple(blob.digest for blob in blobs if blob.media_type not in _ELSEWHERE),
        subject=_subject(manifest.subject),
        # §Listing Referrers: the config's media type where artifactType is empty or missing
        artifact_type=manifest.artifact_type or manifest.config.media_type,
        annotations=manifest.annotations,
    )


def _index(index: Index, digest: Digest) -> NewManifest:
    document = parse_object(index.raw, what="index")
    subject, artifact_type = document.get("subject"), document.get("artifactType", "")
    known = mediatype.MANIFESTS | mediatype.INDEXES
    return NewManifest(
        digest,
        index.media_type,
        index.raw,
        blobs=tuple(entry.digest for entry in index.manifests if entry.media_type not in known),
        manifests=tuple(entry.digest for entry in index.manifests if entry.media_type in known),
        subject=_subject(Descriptor.from_json(subject) if subject is not None else None),
        artifact_type=artifact_type if isinstance(artifact_type, str) else "",
        annotations=index.annotations,
    )


def _subject(subject: Descriptor | None) -> str:
    return "" if subject is None else str(subject.digest)
