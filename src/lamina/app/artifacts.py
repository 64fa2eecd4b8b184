# SPDX-License-Identifier: Apache-2.0
"""Manifest lists made by hand, and artifacts attached to images, in registries.

A list is kept as a document of the store until it is removed; its entries stay in their registry.
"""

from __future__ import annotations

import io
import json

from lamina.errors import Kind, LaminaError
from lamina.events import Phase
from lamina.registry import protocol
from lamina.registry.graph import copy_graph
from lamina.registry.upload import RegistrySink
from lamina.spec import mediatype
from lamina.spec.config import ImageConfig
from lamina.spec.descriptor import Descriptor, annotations_of
from lamina.spec.digest import Digest
from lamina.spec.document import dump_bounded
from lamina.spec.manifest import Index, Manifest
from lamina.spec.reference import Reference
from lamina.start.record import Record, replace
from lamina.store.ports import Document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO

    from lamina.registry.client import Registries, Repository
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import Work

LIST = "manifest-list"
TITLE = "org.opencontainers.image.title"
CREATED = "org.opencontainers.image.created"
_MAX_CONFIG = 4 * 1024 * 1024


class Entry(Record):
    """An image of a list: where it is, and its descriptor with the platform."""

    source: str
    descriptor: Descriptor


def create_list(
    store: Store, registries: Registries, name: str, images: Sequence[str], *, amend: bool
) -> str:
    """Make (with `amend`: extend) the list `name` of images in registries; its full name.

    Raises:
        LaminaError: CONFLICT if it exists; INVALID for an image that is a list.
    """
    list_name = str(Reference.parse(name).with_default_tag())
    known = _read(store, list_name)
    if known is not None and not amend:
        raise LaminaError(
            f"the manifest list {name} exists", kind=Kind.CONFLICT, hint="extend it with --amend"
        )
    entries = {entry.descriptor.digest: entry for entry in known or ()}
    for image in images:
        reference = Reference.parse(image).with_default_tag()
        repository = registries.repository(reference)
        found = repository.resolve(str(reference.digest or reference.tag))
        if found.descriptor.media_type in mediatype.INDEXES:
            raise LaminaError(f"{image} is a manifest list itself", kind=Kind.INVALID)
        platform = _platform_of(repository, found.raw, found.descriptor.media_type)
        pinned = replace(reference, tag="", digest=found.descriptor.digest)
        entry = Entry(str(pinned), replace(found.descriptor, platform=platform))
        entries[found.descriptor.digest] = entry
    _write(store, list_name, list(entries.values()))
    return list_name


def annotate_list(store: Store, name: str, image: str, change: Callable[[Entry], Entry]) -> None:
    """Change the entry of a list that `image` (a reference or digest) names. Raises NOT_FOUND."""
    list_name = str(Reference.parse(name).with_default_tag())
    entries = list(read_list(store, name))
    wanted = Reference.parse(image) if ":" not in image.partition("@")[0] or "/" in image else None
    for position, entry in enumerate(entries):
        pinned = Reference.parse(entry.source)
        digest = wanted.digest if wanted is not None else None
        if image == str(entry.descriptor.digest) or (
            wanted is not None
            and wanted.name == pinned.name
            and (digest is None or digest == pinned.digest)
        ):
            entries[position] = change(entry)
            _write(store, list_name, entries)
            return
    raise LaminaError(f"the manifest list {name} has no entry {image}", kind=Kind.NOT_FOUND)


def read_list(store: Store, name: str) -> tuple[Entry, ...]:
    """The entries of a list. Raises kind NOT_FOUND."""
    found = _read(store, str(Reference.parse(name).with_default_tag()))
    if found is None:
        raise LaminaError(
            f"no manifest list {name} was made here",
            kind=Kind.NOT_FOUND,
            hint="make it with 'lamina manifest create'",
        )
    return found


def has_list(store: Store, name: str) -> bool:
    """Whether a list of that name was made here."""
    return _read(store, str(Reference.parse(name).with_default_tag())) is not None


def remove_list(store: Store, name: str) -> None:
    """Forget a list. Raises kind NOT_FOUND."""
    read_list(store, name)
    store.documents.delete(LIST, str(Reference.parse(name).with_default_tag()))


def list_index(entries: Sequence[Entry]) -> Index:
    """The index that is pushed for the entries."""
    docker = all(e.descriptor.media_type == mediatype.DOCKER_MANIFEST for e in entries)
    kind = mediatype.DOCKER_MANIFEST_LIST if docker and entries else mediatype.OCI_INDEX
    return Index.make([entry.descriptor for entry in entries], media_type=kind)


def push_list(store: Store, registries: Registries, name: str, *, work: Work) -> Digest:
    """Push a list; images that its repository lacks are copied there from where they are."""
    reference = Reference.parse(name).with_default_tag()
    entries = read_list(store, name)
    index = list_index(entries)
    root = index.descriptor()
    endpoint = registries.repository(reference, for_push=True).own
    for entry in entries:
        source = Reference.parse(entry.source)
        near = source.registry == reference.registry and source.name != reference.name
        sink = RegistrySink(
            endpoint,
            root=root.digest,
            tags=(reference.tag,),
            mounts=_Near(source.repository) if near else None,
        )
        if not sink.exists(entry.descriptor):
            copy_graph(
                registries.repository(source),
                sink,
                entry.descriptor,
                work=work,
                phase=Phase.COPYING,
            )
    RegistrySink(endpoint, root=root.digest, tags=(reference.tag,)).put_document(root, index.raw)
    return root.digest


class _Near:
    """Every blob may be in this one repository of the same registry."""

    def __init__(self, repository: str) -> None:
        self._repository = repository

    def __call__(self, digest: Digest) -> Sequence[str]:
        return (self._repository,)


def _platform_of(repository: Repository, raw: bytes, media_type: str) -> Platform:
    config = Manifest.parse(raw, media_type=media_type).config
    with repository.open(config) as stream:
        parts = []
        while data := stream.read(1 << 16):
            parts.append(data)
            if sum(map(len, parts)) > _MAX_CONFIG:
                raise LaminaError("the config is too large", kind=Kind.INVALID)
    body = b"".join(parts)
    if Digest.of(body, algorithm=config.digest.algorithm) != config.digest:
        raise LaminaError(f"config {config.digest} is damaged", kind=Kind.INTEGRITY)
    return ImageConfig.parse(body).platform


def _read(store: Store, name: str) -> tuple[Entry, ...] | None:
    document = store.documents.get(LIST, name)
    if document is None:
        return None
    return tuple(
        Entry(entry["source"], Descriptor.from_json(entry["descriptor"]))
        for entry in json.loads(document.body)["entries"]
    )


def _write(store: Store, name: str, entries: Sequence[Entry]) -> None:
    body = json.dumps(
        {
            "entries": [
                {"source": entry.source, "descriptor": entry.descriptor.to_json()}
                for entry in entries
            ]
        }
    )
    if store.documents.get(LIST, name) is None:
        store.documents.insert(Document(LIST, name, name, body, 0.0))
    else:
        store.documents.update(LIST, name, body)


# --- attach ----------------------------------------------------------------------------------


class _Memory:
    """Blobs and documents in memory as Source."""

    def __init__(self) -> None:
        self.parts: dict[Digest, bytes] = {}

    def add(self, media_type: str, data: bytes) -> Descriptor:
        descriptor = Descriptor.of(media_type, data)
        self.parts[descriptor.digest] = data
        return descriptor

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> IO[bytes]:
        return io.BytesIO(self.parts[descriptor.digest][offset:])

    def document(self, descriptor: Descriptor) -> bytes:
        return self.parts[descriptor.digest]

    def exists(self, descriptor: Descriptor) -> bool:
        return descriptor.digest in self.parts


def attach(
    registries: Registries,
    name: str,
    files: Sequence[tuple[str, str, bytes]],
    *,
    artifact_type: str,
    annotations: Mapping[str, str],
    work: Work,
) -> Digest:
    """Push an artifact of `files` (title, media type, bytes) that refers to the image; its digest.

    Where the registry has no referrers API, the tag that stands in for it is updated (without a
    lock: registries have none).
    """
    reference = Reference.parse(name).with_default_tag()
    repository = registries.repository(reference, for_push=True)
    subject = repository.resolve(str(reference.digest or reference.tag)).descriptor
    source = _Memory()
    layers = [
        replace(source.add(media_type, data), annotations=((TITLE, title),))
        for title, media_type, data in files
    ]
    config = source.add(mediatype.OCI_EMPTY, b"{}")
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": config.to_json(),
        "layers": [layer.to_json() for layer in layers or [config]],
        "subject": subject.to_json(),
    }
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    raw = dump_bounded(document, what="artifact's manifest")
    root = source.add(mediatype.OCI_MANIFEST, raw)
    sink = RegistrySink(repository.own, root=root.digest)
    copy_graph(source, sink, root, work=work, phase=Phase.PUSHING)
    if sink.subject != str(subject.digest):
        tag = protocol.referrers_tag(subject.digest)
        entry = replace(
            root, artifact_type=artifact_type, annotations=annotations_of(dict(annotations))
        )
        known = repository.tagged_referrers(subject.digest)
        kept = [each for each in known if each.digest != root.digest]
        index = Index.make([*kept, entry])
        RegistrySink(repository.own, root=index.descriptor().digest, tags=(tag,)).put_document(
            index.descriptor(), index.raw
        )
    return root.digest
