# SPDX-License-Identifier: Apache-2.0
"""What the pages show, read from the storage.

Documents in a registry are whatever was pushed: what cannot be read as an image is described as
far as it can be, and never an error of the page.
"""

from __future__ import annotations

import re

from lamina.errors import LaminaError
from lamina.server.ports import BlobFile
from lamina.server.rights import PULL
from lamina.spec import mediatype
from lamina.spec.config import ImageConfig
from lamina.spec.digest import Digest
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.manifest import ATTESTATION, Index, Manifest
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.server.ports import (
        Overview,
        Referrer,
        Storage,
        StoredBlob,
        StoredManifest,
        Summary,
    )
    from lamina.server.rights import Gate, Identity
    from lamina.spec.config import History
    from lamina.spec.descriptor import Descriptor

_PAGE = 1000  # names asked of the storage at once
REFERRERS = 100  # shown of one image
_ATTESTED = "vnd.docker.reference.digest"


class RepositoryRow(Record):
    """A line of the list; `summary` is None where the driver cannot tell."""

    name: str
    summary: Summary | None


class TagRow(Record):
    """A line of a repository's page. `size` is what a pull of all platforms transfers."""

    tag: str
    digest: str
    kind: str
    platforms: tuple[str, ...]
    size: int
    set_at: float


class Platform(Record):
    """A platform of an index: the name, and the manifest for it."""

    name: str
    digest: str


class LayerRow(Record):
    """A layer, and the command that made it as far as the history tells."""

    descriptor: Descriptor
    command: str
    comment: str


class Attestation(Record):
    """A manifest in an index that says something about an image beside it."""

    digest: str
    about: str
    predicates: tuple[str, ...]


class ImageView(Record):
    """An image's page. `manifest` is None if an index holds no image that is there.

    `config` is None for what is no image, or has a config that cannot be read (`trouble` says so).
    """

    repository: str
    tag: str
    top: StoredManifest
    pushed: float
    shown: StoredManifest | None
    platforms: tuple[Platform, ...] = ()
    attestations: tuple[Attestation, ...] = ()
    manifest: Manifest | None = None
    config: ImageConfig | None = None
    layers: tuple[LayerRow, ...] = ()
    history: tuple[tuple[History, int], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    referrers: tuple[tuple[str, Referrer], ...] = ()
    next_referrers: str = ""  # the digest after which there are more; empty: these are all
    trouble: str = ""

    @property
    def size(self) -> int:
        """Bytes that a pull of the shown manifest transfers."""
        return 0 if self.manifest is None else _transferred(self.manifest)


class Views:
    """Reads pages. `overview` is None where the driver has none."""

    def __init__(self, storage: Storage, gate: Gate, overview: Overview | None) -> None:
        self._storage = storage
        self._gate = gate
        self._overview = overview

    def names(self, identity: Identity, search: str) -> list[str]:
        """Repositories that the caller may pull from and whose names contain `search`, in order."""
        found: list[str] = []
        last = ""
        while True:
            names = self._storage.manifests.repositories(n=_PAGE, last=last)
            found += [
                name for name in names if search in name and self._gate.allows(identity, name, PULL)
            ]
            if len(names) < _PAGE:
                return found
            last = names[-1]

    def rows(self, names: Sequence[str]) -> list[RepositoryRow]:
        """Lines of the list for these names."""
        return [RepositoryRow(name, self.summary(name)) for name in names]

    def summary(self, repository: str) -> Summary | None:
        return None if self._overview is None else self._overview.summary(repository)

    def tags(self, repository: str, search: str, *, newest_first: bool) -> list[str] | None:
        """Tags that contain `search`; None for a repository that holds nothing."""
        found: list[str] = []
        last = ""
        while True:
            tags = self._storage.manifests.tags(repository, n=_PAGE, last=last)
            if tags is None:
                return None
            found += [tag for tag in tags if search in tag]
            if len(tags) < _PAGE:
                break
            last = tags[-1]
        if newest_first and self._overview is not None:
            times = self._overview.tagged(repository)
            found.sort(key=lambda tag: times.get(tag, 0.0), reverse=True)
        return found

    def tag_rows(self, repository: str, tags: Sequence[str]) -> list[TagRow]:
        """Lines of a repository's page; a tag that went meanwhile has none."""
        times = {} if self._overview is None else self._overview.tagged(repository)
        rows = []
        for tag in tags:
            stored = self._storage.manifests.find(repository, tag=tag)
            if stored is None:
                continue
            kind, platforms, size = self._described(repository, stored)
            rows.append(TagRow(tag, stored.digest, kind, platforms, size, times.get(tag, 0.0)))
        return rows

    def image(
        self, repository: str, *, tag: str, digest: str, chosen: str, after: str
    ) -> ImageView | None:
        """The page of a manifest; `chosen` is the digest of a platform's, `after` of a referrer.

        None if the manifest, or the chosen one in it, is not there.
        """
        top = self._storage.manifests.find(repository, tag=tag, digest=digest)
        if top is None:
            return None
        pushed = 0.0 if self._overview is None else self._overview.pushed(repository, top.digest)
        shown: StoredManifest | None = top
        platforms: tuple[Platform, ...] = ()
        attestations: tuple[Attestation, ...] = ()
        annotations: tuple[tuple[str, str], ...] = ()
        trouble = ""
        index = _index(top)
        if index is not None:
            platforms = tuple(
                Platform(_platform(entry), str(entry.digest))
                for entry in index.manifests
                if not entry.annotation(ATTESTATION)
            )
            attestations = self._attestations(repository, index)
            annotations = index.annotations
            wanted = chosen or (platforms[0].digest if platforms else "")
            if chosen and all(chosen != str(entry.digest) for entry in index.manifests):
                return None
            shown = self._storage.manifests.find(repository, digest=wanted) if wanted else None
            if wanted and shown is None:
                trouble = f"The registry no longer holds {wanted}."
        elif chosen:
            return None
        referrers, following = self._referrers(repository, top, shown, after=after)
        manifest = None if shown is None else _manifest(shown)
        config = None
        if manifest is not None:
            annotations += manifest.annotations
            if manifest.config.media_type in mediatype.CONFIGS:
                config, trouble = self._config(repository, manifest.config)
        return ImageView(
            repository,
            tag,
            top,
            pushed,
            shown,
            platforms=platforms,
            attestations=attestations,
            manifest=manifest,
            config=config,
            layers=_layers(manifest, config),
            history=_history(config),
            annotations=tuple(dict.fromkeys(annotations)),
            referrers=referrers,
            next_referrers=following,
            trouble=trouble,
        )

    def _described(
        self, repository: str, stored: StoredManifest
    ) -> tuple[str, tuple[str, ...], int]:
        """(kind, platforms, bytes) of a manifest; each blob of an index counts once."""
        index = _index(stored)
        if index is None:
            manifest = _manifest(stored)
            if manifest is None:
                return "unknown", (), len(stored.raw)
            if manifest.config.media_type not in mediatype.CONFIGS:
                kind = manifest.artifact_type or manifest.config.media_type
                return kind, (), _transferred(manifest)
            config, _ = self._config(repository, manifest.config)
            return "image", (() if config is None else (_of(config),)), _transferred(manifest)
        blobs: dict[str, int] = {}
        names = []
        for entry in index.manifests:
            child = self._storage.manifests.find(repository, digest=str(entry.digest))
            manifest = None if child is None else _manifest(child)
            if entry.annotation(ATTESTATION):
                continue
            names.append(_platform(entry))
            if manifest is not None:
                for blob in (manifest.config, *manifest.layers):
                    blobs[str(blob.digest)] = blob.size
        return "index", tuple(names), sum(blobs.values())

    def _config(self, repository: str, descriptor: Descriptor) -> tuple[ImageConfig | None, str]:
        """(config, what was wrong with it)."""
        found = self._storage.blobs.find(repository, descriptor.digest, keep=False)
        if found is None:
            return None, "The registry does not hold the image's config."
        if found.size > MAX_DOCUMENT:
            return None, "The image's config is too large to be shown."
        try:
            return ImageConfig.parse(_bytes_of(found)), ""
        except LaminaError as error:
            return None, f"The image's config cannot be read: {error.what}"
        except FileNotFoundError:  # removed by the collector meanwhile
            return None, "The registry does not hold the image's config."

    def _attestations(self, repository: str, index: Index) -> tuple[Attestation, ...]:
        found = []
        for entry in index.manifests:
            if not entry.annotation(ATTESTATION):
                continue
            stored = self._storage.manifests.find(repository, digest=str(entry.digest))
            manifest = None if stored is None else _manifest(stored)
            predicates = (
                ()
                if manifest is None
                else tuple(
                    layer.annotation("in-toto.io/predicate-type") or layer.media_type
                    for layer in manifest.layers
                )
            )
            found.append(
                Attestation(str(entry.digest), entry.annotation(_ATTESTED) or "", predicates)
            )
        return tuple(found)

    def _referrers(
        self, repository: str, top: StoredManifest, shown: StoredManifest | None, *, after: str
    ) -> tuple[tuple[tuple[str, Referrer], ...], str]:
        """(subject, referrer) of the index and of the image that is shown; where the rest begins.

        The rest of one may begin before the other's end: some are then shown twice, none is lost.
        """
        found: list[tuple[str, Referrer]] = []
        ends: list[str] = []
        for subject in dict.fromkeys(m.digest for m in (top, shown) if m is not None):
            listed = self._storage.manifests.referrers(
                repository, Digest.parse(subject), n=REFERRERS + 1, last=after
            )
            if len(listed) > REFERRERS:
                ends.append(listed[REFERRERS - 1].digest)
            found += [(subject, referrer) for referrer in listed[:REFERRERS]]
        return tuple(found), min(ends, default="")


def _bytes_of(blob: StoredBlob) -> bytes:
    if isinstance(blob, BlobFile):
        with open(blob.path, "rb") as file:
            return file.read(blob.size)
    return b"".join(blob.read(0, blob.size))


def _index(stored: StoredManifest) -> Index | None:
    if stored.media_type not in mediatype.INDEXES:
        return None
    try:
        return Index.parse(stored.raw, media_type=stored.media_type)
    except LaminaError:
        return None


def _manifest(stored: StoredManifest) -> Manifest | None:
    if stored.media_type not in mediatype.MANIFESTS:
        return None
    try:
        return Manifest.parse(stored.raw, media_type=stored.media_type)
    except LaminaError:
        return None


def _transferred(manifest: Manifest) -> int:
    blobs = {str(blob.digest): blob.size for blob in (manifest.config, *manifest.layers)}
    return sum(blobs.values())


def _platform(entry: Descriptor) -> str:
    if entry.platform is not None:
        version = entry.platform.os_version
        return f"{entry.platform} {version}".rstrip()
    return entry.artifact_type or "no platform"


def _of(config: ImageConfig) -> str:
    try:
        return str(config.platform)
    except LaminaError:
        return f"{config.os}/{config.architecture}"


def _layers(manifest: Manifest | None, config: ImageConfig | None) -> tuple[LayerRow, ...]:
    """Layers with their commands, which are only known if the history has one for each."""
    if manifest is None:
        return ()
    made = [] if config is None else [entry for entry in config.history if not entry.empty_layer]
    if len(made) != len(manifest.layers):
        return tuple(LayerRow(layer, "", "") for layer in manifest.layers)
    return tuple(
        LayerRow(layer, command(entry.created_by), entry.comment)
        for layer, entry in zip(manifest.layers, made, strict=True)
    )


def _history(config: ImageConfig | None) -> tuple[tuple[History, int], ...]:
    """Each entry with the number of the layer it made, from 1; 0 for none."""
    found = []
    number = 0
    for entry in () if config is None else config.history:
        number += not entry.empty_layer
        found.append((entry, 0 if entry.empty_layer else number))
    return tuple(found)


_NOP = re.compile(r"/bin/sh -c #\(nop\)\s*")
_SHELL = re.compile(r"(?:RUN )?(?:\|\d+ (?:[^\s=]+=\S* )*)?/bin/sh -c ")


def command(created_by: str) -> str:
    """A history entry's command as it stands in a Dockerfile.

    Builders write `/bin/sh -c #(nop)  CMD ["x"]` (Docker's first builder) and
    `RUN /bin/sh -c make # buildkit`.
    """
    text = created_by.strip().removesuffix("# buildkit").rstrip()
    if _NOP.match(text):
        return _NOP.sub("", text, count=1)
    return _SHELL.sub("RUN ", text, count=1) if _SHELL.match(text) else text
