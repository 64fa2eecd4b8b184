# SPDX-License-Identifier: Apache-2.0
"""Config and manifest of a build's result, and their blobs in the store.

A rebuild of which every step was cached must give the same image, byte for byte, though no clock
stands still: the manifest is remembered under a digest of everything it is made of except the
time. The record is a document of the store (kind `export`); it keeps nothing alive, and is
believed only if every blob of its image is still there.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.image.times import format_time
from lamina.spec import mediatype
from lamina.spec.config import History
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import Digest
from lamina.spec.document import MAX_DOCUMENT, dump, parse_object
from lamina.spec.manifest import Manifest
from lamina.start.record import Record, replace
from lamina.store.ports import Document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.exporter.ports import BuildResult, Output
    from lamina.spec.config import ImageConfig
    from lamina.spec.digest import DiffID
    from lamina.store.ports import Store
    from lamina.tasks import Work

KIND = "export"
_KEPT = 2000  # records; beyond that, those whose image is gone are dropped


class Assembled(Record):
    """An image that is in the store and has no name yet."""

    target: Descriptor
    config: Digest | None  # None for an index


def assemble(result: BuildResult, store: Store, output: Output, *, work: Work) -> Assembled:
    """The image of `result`, all its blobs in the store.

    Raises:
        LaminaError: see `Exporter.export`.
    """
    key = _memo_key(result, output)
    reusable = result.cached or result.epoch is not None
    known = _recall(store, key) if reusable else None
    if known is not None:
        return known
    from lamina.exporter.layers import layer_blobs

    diff_ids, layers = layer_blobs(result, store, output, work=work)
    config_raw = final_config(result, diff_ids).serialise()
    types = _media_types(output)
    config = Descriptor(types[0], store.content.add(config_raw), len(config_raw))
    manifest = Manifest.make(
        config,
        [_retyped(layer, types[2]) for layer in layers],
        media_type=types[1],
        annotations=output.annotations,
    )
    store.content.add(manifest.raw)
    _remember(store, key, manifest)
    return Assembled(manifest.descriptor(), config.digest)


def _media_types(output: Output) -> tuple[str, str, dict[str, str]]:
    """(config, manifest, layer by compression)."""
    if output.oci_mediatypes:
        return mediatype.OCI_CONFIG, mediatype.OCI_MANIFEST, mediatype.OCI_LAYER_OF
    return mediatype.DOCKER_CONFIG, mediatype.DOCKER_MANIFEST, mediatype.DOCKER_LAYER_OF


def _retyped(layer: Descriptor, types: dict[str, str]) -> Descriptor:
    """The layer's descriptor with the media type of this family, and nothing but what it needs."""
    compression = mediatype.LAYER_COMPRESSION[layer.media_type]
    return Descriptor(types[compression], layer.digest, layer.size)


def final_config(result: BuildResult, diff_ids: Sequence[DiffID]) -> ImageConfig:
    """The config with the whole stack, and `created` in it and in the new history entries."""
    seconds = result.created if result.epoch is None else result.epoch
    created = format_time(seconds)
    history = _balanced(_dated(result.config.history, created), len(diff_ids))
    return replace(result.config, diff_ids=tuple(diff_ids), history=history, created=created)


def _dated(history: Sequence[History], created: str) -> tuple[History, ...]:
    """History with `created` set on the entries at the end that have none: those of this build."""
    first = len(history)
    while first and not history[first - 1].created:
        first -= 1
    return (
        *history[:first],
        *(replace(entry, created=created) for entry in history[first:]),
    )


def _balanced(history: Sequence[History], layers: int) -> tuple[History, ...]:
    """One entry without `empty_layer` a layer, as readers count on (a base may have no history)."""
    missing = layers - sum(not entry.empty_layer for entry in history)
    if missing >= 0:
        return (*(History(comment="no history recorded"),) * missing, *history)
    balanced = list(history)
    for position, entry in enumerate(balanced):
        if missing and not entry.empty_layer:
            # a broken base: the oldest entries cannot have a layer each
            balanced[position] = replace(entry, empty_layer=True)
            missing += 1
    return tuple(balanced)


def _memo_key(result: BuildResult, output: Output) -> str:
    document = {
        "config": replace(result.config, created="").to_json(),
        "diff_ids": [str(diff_id) for diff_id in result.diff_ids],
        "base_layers": result.base_layers,
        "epoch": result.epoch,
        "compression": [output.compression, output.compression_level, output.force_compression],
        "oci": output.oci_mediatypes,
        "annotations": output.annotations,
    }
    return str(Digest.of(dump(document)))


def _recall(store: Store, key: str) -> Assembled | None:
    """The remembered image, if all of it is still here. A damaged record is none."""
    document = store.documents.get(KIND, key)
    if document is None:
        return None
    try:
        target = Descriptor.from_json(parse_object(document.body.encode(), what="export record"))
        if not store.content.exists(target.digest):
            return None
        raw = store.content.read(target.digest, limit=MAX_DOCUMENT)
        manifest = Manifest.parse(raw, media_type=target.media_type)
    except LaminaError as error:
        if error.kind not in {Kind.INVALID, Kind.INTEGRITY, Kind.NOT_FOUND}:
            raise
        return None
    if not all(store.content.exists(d.digest) for d in (manifest.config, *manifest.layers)):
        return None
    return Assembled(target, manifest.config.digest)


def _remember(store: Store, key: str, manifest: Manifest) -> None:
    body = dump(manifest.descriptor().to_json()).decode()
    if store.documents.get(KIND, key) is not None:
        store.documents.update(KIND, key, body)
        return
    _forget_old(store)
    try:
        store.documents.insert(Document(KIND, key, key, body, 0.0))
    except LaminaError as error:
        if error.kind is not Kind.CONFLICT:
            raise
        # another process recorded the same export at this moment
        store.documents.update(KIND, key, body)


def _forget_old(store: Store) -> None:
    records = store.documents.list(KIND)
    if len(records) < _KEPT:
        return
    for document in records[: len(records) // 2]:
        if _recall(store, document.id) is None:
            store.documents.delete(KIND, document.id)
