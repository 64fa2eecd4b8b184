# SPDX-License-Identifier: Apache-2.0
"""`CacheExport`: the cache of one build on its way to one place.

`made` is called while the build runs: a thread sends the layers of steps that have ended. `finish`
sends the rest and then, last of all, the documents: until then the place has the cache it had
before, after a kill -9 too. What the place has already is not sent again.
"""

from __future__ import annotations

import io
import os
import threading
from queue import SimpleQueue

from lamina.buildcache import codec
from lamina.buildcache.collecting import layers_of
from lamina.errors import Cancelled, Kind, LaminaError
from lamina.events import Notice, Progress
from lamina.image.unpack import LayerMissing, blobs_of, ensure_blob
from lamina.registry.journal import StoreJournal
from lamina.registry.layout import LayoutEnd
from lamina.registry.storeend import StoreEnd
from lamina.registry.upload import RegistrySink
from lamina.spec import mediatype
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import Digest
from lamina.spec.document import DocumentTooLarge, dump_bounded
from lamina.spec.identity import chain_id
from lamina.spec.reference import Reference
from lamina.start.record import Record, replace
from lamina.system.locks import FileLock
from lamina.system.userns import is_possible
from lamina.tasks import CancelToken, TaskGroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from typing import IO, Protocol

    from lamina.buildcache.codec import BaseImage, Remembered
    from lamina.buildcache.importing import Imports
    from lamina.buildcache.options import CacheTo
    from lamina.registry.client import Registries
    from lamina.registry.ports import Sink, Source
    from lamina.spec.digest import DiffID, Stack
    from lamina.store.ports import Store
    from lamina.tasks import Work

else:
    Protocol = object

_JOBS = 4  # layers sent at one time
_ABANDONED = 24 * 3600.0  # seconds after which a half-written file has no writer any more


class Place(Protocol):
    """Where a cache goes. Any thread may call `sink`."""

    def sink(self) -> Sink:
        """What takes the blobs. Raises LaminaError."""

    def publish(self, documents: Sequence[tuple[Descriptor, bytes]]) -> None:
        """Put the documents, the root last, and let the place's name mean it."""


class DirectoryPlace:
    """An OCI image layout; one process at a time changes its `index.json`."""

    def __init__(self, path: str, tag: str, clock: Callable[[], float]) -> None:
        self._layout = LayoutEnd(path)
        self._tag = tag
        self._clock = clock

    def _lock(self) -> AbstractContextManager[object]:
        os.makedirs(self._layout.path, exist_ok=True)
        # containerd's name for it, which BuildKit takes too
        return FileLock(os.path.join(self._layout.path, "index.json.lock"))

    def sink(self) -> Sink:
        with self._lock():
            self._layout.create(beside=("index.json.lock",))
            self._layout.sweep(before=self._clock() - _ABANDONED)
        return self._layout

    def publish(self, documents: Sequence[tuple[Descriptor, bytes]]) -> None:
        with self._lock():
            for descriptor, raw in documents:
                self._layout.put_document(descriptor, raw)
            self._layout.set_ref(documents[-1][0], self._tag)


class RegistryPlace:
    """A tag in a registry."""

    def __init__(
        self, text: str, store: Store, registries: Registries, clock: Callable[[], float]
    ) -> None:
        self._reference = Reference.parse(text).with_default_tag()
        self._registries = registries
        self._journal = StoreJournal(store, clock=clock)

    def sink(self) -> Sink:
        return self._sink(None)

    def _sink(self, root: Digest | None) -> Sink:
        repository = self._registries.repository(self._reference, for_push=True)
        return RegistrySink(
            repository.own,
            root=root or Digest.of(b""),  # blobs only
            tags=(self._reference.tag,),
            journal=self._journal,
        )

    def publish(self, documents: Sequence[tuple[Descriptor, bytes]]) -> None:
        sink = self._sink(documents[-1][0].digest)
        for descriptor, raw in documents:
            sink.put_document(descriptor, raw)


class Exported(Record):
    """What a cache holds now: records, layers, and how many of its blobs were sent."""

    records: int
    layers: int
    sent: int


class CacheExport:
    """See the module. Close it at the end, whatever happened."""

    def __init__(
        self, spec: CacheTo, place: Place, store: Store, *, imports: Imports | None, work: Work
    ) -> None:
        self.spec = spec
        self._place = place
        self._store = store
        self._imports = imports
        self._work = replace(work, cancel=CancelToken(work.cancel))
        self._guard = threading.Lock()
        self._sink: Sink | None = None
        self._bases: frozenset[DiffID] = frozenset()
        self._blobs: dict[DiffID, Descriptor] = {}
        self._sent = 0
        self._queue: SimpleQueue[Stack | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    # While the build runs -------------------------------------------------------------------

    def made(self, stack: Stack) -> None:
        """A step has ended: send its layer in the background. Any thread may call it."""
        with self._guard:
            # started only now: a thread from before `isolate` would see other mounts
            if self._thread is None:
                self._thread = threading.Thread(target=self._send_early, name="cache-export")
                self._thread.start()
        self._queue.put(stack)

    def _send_early(self) -> None:
        """Send what comes; the first failure ends it, and `finish` says what is wrong."""
        try:
            while (stack := self._queue.get()) is not None:
                self._send(stack)
        except (LaminaError, OSError, Cancelled):
            return

    def close(self) -> None:
        """End what is being sent: for a build that failed. Idempotent."""
        self._work.cancel.cancel()
        self._wait()

    def _wait(self) -> None:
        """Wait until all that was `made` is sent."""
        with self._guard:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join()

    # At the end -----------------------------------------------------------------------------

    def finish(
        self, records: Sequence[Remembered], images: Sequence[BaseImage], bases: frozenset[DiffID]
    ) -> Exported:
        """Send what is missing, then the documents. `bases` are the layers of base images: they
        stay in the compression they have.

        Raises:
            LaminaError: what the place says.
        """
        self._bases = bases
        name = f"exporting cache to {self.spec}"
        self._work.emit(Progress(name, name, 0, None, self._work.clock()))
        self._wait()
        layers = layers_of(records)
        gone = self._send_all(list(layers.values()))
        kept = [each for each in records if not gone.intersection(each.result)]
        if len(kept) < len(records):
            text = (
                f"{len(records) - len(kept)} cache records are not exported: their layers are not"
            )
            self._work.emit(Notice(f"{text} in the store any more"))
        used = layers_of(kept)
        blobs = {diff_id: self._blobs[diff_id] for diff_id in used}
        config, manifest, raw = self._documents(kept, images, blobs)
        self._put_bytes(config[0], config[1])
        self._place.publish([(manifest, raw)])
        self._work.emit(Progress(name, name, len(raw), len(raw), self._work.clock(), done=True))
        return Exported(len(kept), len(blobs), self._sent)

    def _documents(
        self,
        records: Sequence[Remembered],
        images: Sequence[BaseImage],
        blobs: dict[DiffID, Descriptor],
    ) -> tuple[tuple[Descriptor, bytes], Descriptor, bytes]:
        pairs = tuple((diff_id, blob.digest) for diff_id, blob in blobs.items())
        try:
            body = codec.encode(codec.CacheDocument(tuple(records), pairs, tuple(images)))
        except DocumentTooLarge:  # explanations go before records do
            bare = tuple(codec.Remembered(e.key, e.result, e.name) for e in records)
            body = codec.encode(codec.CacheDocument(bare, pairs, tuple(images)))
        config = Descriptor.of(codec.CONFIG_TYPE, body)
        listed = sorted({blob.digest: blob for blob in blobs.values()}.values(), key=_by_digest)
        entries = [self._listed(blob).to_json() for blob in listed]
        document: dict[str, object] = {"schemaVersion": 2}
        if self.spec.image_manifest:
            media_type = mediatype.OCI_MANIFEST
            document |= {"mediaType": media_type, "artifactType": codec.ARTIFACT_TYPE}
            document |= {"config": config.to_json(), "layers": entries}
        else:
            is_oci = self.spec.oci_mediatypes
            media_type = mediatype.OCI_INDEX if is_oci else mediatype.DOCKER_MANIFEST_LIST
            document |= {"mediaType": media_type, "manifests": [*entries, config.to_json()]}
        raw = dump_bounded(document, what="cache's manifest")
        return (config, body), Descriptor.of(media_type, raw), raw

    def _listed(self, blob: Descriptor) -> Descriptor:
        compression = mediatype.LAYER_COMPRESSION[blob.media_type]
        types = mediatype.OCI_LAYER_OF if self.spec.oci_mediatypes else mediatype.DOCKER_LAYER_OF
        return Descriptor(types[compression], blob.digest, blob.size)

    # Layers ---------------------------------------------------------------------------------

    def _send_all(self, stacks: list[Stack]) -> set[DiffID]:
        """Send the last layer of each stack, a few at a time; those that nobody has."""
        gone: set[DiffID] = set()
        is_possible()  # a layer may have to be read, which no thread can prepare

        def work() -> None:
            while stacks:
                try:
                    stack = stacks.pop()
                except IndexError:
                    return
                try:
                    self._send(stack)
                except LayerMissing:
                    gone.add(stack[-1])

        try:
            with TaskGroup(self._work.cancel) as group:
                for _ in range(min(_JOBS, len(stacks))):
                    group.start(work, name="cache-export")
        except ExceptionGroup as several:
            raise several.exceptions[0] from several
        return gone

    def _send(self, stack: Stack) -> None:
        diff_id = stack[-1]
        if diff_id in self._blobs:
            return
        self._work.cancel.check()
        source, blob = self._blob(stack)
        sink = self._opened()
        if not sink.exists(blob):
            if source is None:  # it lies where it was imported from: by way of the store
                assert self._imports is not None
                self._imports.bring(stack, self._work.cancel)
            sink.put(
                blob, source or StoreEnd(self._store), report=_nobody, cancel=self._work.cancel
            )
            with self._guard:
                self._sent += 1
        self._blobs[diff_id] = blob

    def _blob(self, stack: Stack) -> tuple[Source | None, Descriptor]:
        """The blob that stands for the layer; no source if it is not in the store yet."""
        spec, diff_id = self.spec, stack[-1]
        is_base = diff_id in self._bases
        known = {
            mediatype.LAYER_COMPRESSION[b.media_type]: b for b in blobs_of(self._store, diff_id)
        }
        if not spec.force_compression:
            if spec.compression in known:
                return StoreEnd(self._store), known[spec.compression]
            for compression in ("gzip", "zstd", "uncompressed"):
                if compression in known and (is_base or compression != "uncompressed"):
                    return StoreEnd(self._store), known[compression]
            elsewhere = self._imports.blob(diff_id) if self._imports is not None else None
            if not known and elsewhere is not None and not self._is_unpacked(stack):
                return None, elsewhere
        elif self._imports is not None:
            self._imports.bring(stack, self._work.cancel)
        blob = ensure_blob(
            self._store,
            stack,
            len(stack) - 1,
            compression=spec.compression,
            level=spec.level,
            cancel=self._work.cancel,
        )
        return StoreEnd(self._store), blob

    def _is_unpacked(self, stack: Stack) -> bool:
        chain = chain_id(stack)
        return chain is not None and self._store.snapshots.exists(chain)

    def _put_bytes(self, descriptor: Descriptor, data: bytes) -> None:
        sink = self._opened()
        if not sink.exists(descriptor):
            sink.put(descriptor, _Bytes(data), report=_nobody, cancel=self._work.cancel)  # type: ignore[arg-type]  # only open is used

    def _opened(self) -> Sink:
        with self._guard:
            if self._sink is None:
                try:
                    self._sink = self._place.sink()
                except OSError as error:
                    raise LaminaError(
                        f"cannot write to {self.spec}: {error.strerror}", kind=Kind.DENIED
                    ) from error
            return self._sink


class _Bytes:
    """A document as a source of one blob."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> IO[bytes]:
        return io.BytesIO(self._data[offset:])


def _nobody(current: int) -> None:
    """Reports of single blobs are not told: layers go beside the build's own lines."""


def _by_digest(blob: Descriptor) -> str:
    return str(blob.digest)
