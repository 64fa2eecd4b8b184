# SPDX-License-Identifier: Apache-2.0
"""The blobs of a result's layers, made in parallel where they are missing."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.exporter.derived import derived_layer, note_derived
from lamina.exporter.progress import Told
from lamina.image.blobs import fresh_ingest
from lamina.image.unpack import ensure_blob
from lamina.image.view import open_uncompressed
from lamina.spec import mediatype
from lamina.spec.descriptor import Descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamina.exporter.ports import BuildResult, Output
    from lamina.spec.digest import DiffID, Stack
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken, Work

KIND = "clamped-layer"  # (diffID, epoch) -> diffID of the same layer with clamped mtimes
# layers at a time: compression releases the GIL, disks and cores do not multiply, and zstd with its
# window takes 21 MiB a layer, where gzip takes 9
_JOBS = {"zstd": 2}
_OTHER_JOBS = 4
# of several blobs of a base layer, the one that most readers take
_PREFERENCE = ("gzip", "zstd", "uncompressed")


def layer_blobs(
    result: BuildResult, store: Store, output: Output, *, work: Work
) -> tuple[Stack, tuple[Descriptor, ...]]:
    """The final stack (new layers clamped to the epoch) and a blob of each, lowest first.

    A base layer keeps a blob it has, unless `force-compression`; a new one gets the wanted
    compression. Each layer that takes work is told as one task.

    Raises:
        LaminaError: NOT_FOUND or INTEGRITY from the store, EXHAUSTED for a full disk.
    """
    _check(result)
    count = len(result.diff_ids)
    diff_ids = list(result.diff_ids)
    blobs: list[Descriptor | None] = [None] * count

    def make(position: int) -> None:
        if result.epoch is not None and position >= result.base_layers:
            diff_ids[position] = clamped_layer(
                result, store, position, epoch=result.epoch, output=output, cancel=work.cancel
            )
        with Told(work, str(diff_ids[position]), f"exporting layer {position + 1}") as task:
            blob = _blob(result, store, diff_ids[position], position, output, work.cancel)
            task.size = blob.size
        blobs[position] = blob

    if result.epoch is None:
        for position in range(count):
            blobs[position] = _existing(result, store, position, output)
    missing = [position for position, blob in enumerate(blobs) if blob is None]
    jobs = _JOBS.get(output.compression, _OTHER_JOBS)
    _run_all([_bind(make, position) for position in missing], jobs, work.cancel)
    return tuple(diff_ids), tuple(blob for blob in blobs if blob is not None)


def _bind(function: Callable[[int], None], position: int) -> Callable[[], None]:
    return lambda: function(position)


def _check(result: BuildResult) -> None:
    base = result.diff_ids[: result.base_layers]
    if base != result.config.diff_ids:
        raise LaminaError(
            "the base image's config does not list the layers that the build stands on",
            kind=Kind.INVALID,
        )


def _run_all(functions: Sequence[Callable[[], None]], jobs: int, cancel: CancelToken) -> None:
    """Run them, `jobs` at a time; the first failure cancels the others."""
    if len(functions) < 2:
        for function in functions:
            function()
        return
    import threading

    from lamina.system.userns import is_possible
    from lamina.tasks import TaskGroup

    is_possible()  # a layer may have to be read, and a process with threads cannot enter a namespace

    todo = list(reversed(functions))
    lock = threading.Lock()

    def work() -> None:
        while not group.token.is_cancelled:
            with lock:
                if not todo:
                    return
                function = todo.pop()
            function()

    with TaskGroup(cancel) as group:
        for _ in range(min(jobs, len(functions))):
            group.start(work, name="export-layer")
    cancel.check()


def _existing(
    result: BuildResult, store: Store, position: int, output: Output
) -> Descriptor | None:
    """A blob that serves as it is, without any work."""
    known = store.metadata.get_layer(result.diff_ids[position])
    if known is None:
        return None
    by_compression = {
        mediatype.LAYER_COMPRESSION.get(blob.media_type, ""): blob
        for blob in known.blobs
        if store.content.exists(blob.digest)
    }
    is_free = position < result.base_layers and not output.force_compression
    if output.compression_level is not None and not is_free:
        return None  # the level of a blob that exists is not known
    for compression in _PREFERENCE if is_free else (output.compression,):
        if compression in by_compression:
            return by_compression[compression]
    return None


def _blob(
    result: BuildResult,
    store: Store,
    diff_id: DiffID,
    position: int,
    output: Output,
    cancel: CancelToken,
) -> Descriptor:
    if diff_id == result.diff_ids[position]:
        existing = _existing(result, store, position, output)
        if existing is not None:
            return existing
    stack = (*result.diff_ids[:position], diff_id)
    return ensure_blob(
        store,
        stack,
        position,
        compression=output.compression,
        level=output.compression_level,
        cancel=cancel,
    )


def clamped_layer(
    result: BuildResult,
    store: Store,
    position: int,
    *,
    epoch: int,
    output: Output,
    cancel: CancelToken,
) -> DiffID:
    """The diffID of the layer with no mtime after `epoch`, its blob in the store.

    The outcome is remembered, so that a rebuild does not read the layer again.
    """
    diff_id = result.diff_ids[position]
    key = f"{diff_id}@{epoch}"
    known = derived_layer(store, KIND, key)
    if known is not None:
        return known
    found = _clamp(result, store, position, epoch=epoch, output=output, cancel=cancel)
    note_derived(store, KIND, key, found)
    return found


def _clamp(
    result: BuildResult,
    store: Store,
    position: int,
    *,
    epoch: int,
    output: Output,
    cancel: CancelToken,
) -> DiffID:
    from lamina.layer.create import create_layer
    from lamina.layer.rewrite import clamped

    source = ensure_blob(store, result.diff_ids, position, cancel=cancel)
    ref = f"clamp {result.diff_ids[position]} {epoch} {output.compression}"
    with (
        open_uncompressed(store, source.digest) as tar,
        fresh_ingest(store, ref) as ingest,
    ):
        created = create_layer(
            clamped(tar, clamp_mtime=epoch),
            ingest.write,
            compression=output.compression,
            level=output.compression_level,
            digest=ingest.digest,
            cancel=cancel,
        )
        if created.diff_id == result.diff_ids[position]:
            ingest.abort()
            return created.diff_id
        digest = ingest.commit(digest=created.digest, size=created.compressed_size)
    blob = Descriptor(mediatype.OCI_LAYER_OF[output.compression], digest, created.compressed_size)
    store.metadata.put_layer(created.diff_id, created.size, blob)
    return created.diff_id
