# SPDX-License-Identifier: Apache-2.0
"""`Imports`: records and layers of other machines, for one build.

Nothing is read before the store itself has no answer; then each place is asked once, for its
records only. A layer is fetched when a step or an export needs it, and counts only if its bytes
have the digest and the diffID that were promised. What goes wrong is told as a warning, and the
build goes on without it: a layer that cannot be had makes `is_to_repeat` true, and a second
attempt does not believe records that need it.
"""

from __future__ import annotations

from itertools import pairwise

from lamina.buildcache.places import open_place, read_cache
from lamina.errors import Kind, LaminaError
from lamina.events import Diagnostic, Progress, Severity
from lamina.registry.client import manifest_type
from lamina.registry.storeend import StoreEnd
from lamina.solver.keytree import split_name, with_site
from lamina.spec.config import ImageConfig
from lamina.spec.digest import Digest
from lamina.spec.identity import chain_ids
from lamina.spec.manifest import children
from lamina.start.lowlevel import allocate_lock
from lamina.start.record import Record
from lamina.store.ports import EarlierKey
from lamina.tasks import TaskGroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamina.buildcache.codec import BaseImage, Remembered
    from lamina.buildcache.options import CacheFrom
    from lamina.registry.client import Registries
    from lamina.registry.ports import Source
    from lamina.solver.keys import Key
    from lamina.spec.descriptor import Descriptor
    from lamina.spec.digest import DiffID, Stack
    from lamina.store.ports import CacheRecord, KeyHistory, Store
    from lamina.tasks import CancelToken, Work


_JOBS = 4  # layers fetched at one time, as pulls do


class LayerLost(LaminaError):
    """No place that was imported gives the layer."""

    kind = Kind.UNAVAILABLE


class ImportedImage(Record):
    """What a base image's name meant where the cache was made. `root` is what the name pointed to."""

    root: Digest
    manifest: Digest
    config: ImageConfig
    origin: str


class Imports:
    """See the module. Any thread may call every method.

    `pull` brings a base image from its registry, for layers that no cache has.
    """

    def __init__(
        self,
        places: Sequence[CacheFrom],
        store: Store,
        *,
        registries: Callable[[], Registries],
        pull: Callable[[str, str], None],
        work: Work,
    ) -> None:
        self._places = tuple(dict.fromkeys(places))
        self._store = store
        self._registries = registries
        self._pull = pull
        self._work = work
        self._guard = allocate_lock()
        self._is_read = False
        self._records: dict[Digest, list[tuple[Remembered, str]]] = {}
        self._blobs: dict[DiffID, list[tuple[Source, Descriptor, str]]] = {}
        self._images: dict[tuple[str, str], tuple[BaseImage, str]] = {}
        self._bases: dict[DiffID, tuple[str, str]] = {}  # layers of images that were taken
        self._refused: set[tuple[str, str]] = set()  # images that are not believed any more
        self._lost: set[DiffID] = set()
        self._is_to_repeat = False
        self._waiting: list[tuple[Stack, list[CacheRecord]]] = []
        self.used: dict[Digest, str] = {}  # vertex -> the place that its result came from

    # Reading --------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read every place, once."""
        with self._guard:
            if self._is_read:
                return
            for place in self._places:
                self._work.cancel.check()
                name = f"importing cache manifest from {place}"
                self._work.emit(Progress(name, name, 0, None, self._work.clock()))
                try:
                    size = self._read_place(place)
                except (LaminaError, OSError) as error:
                    self._warn(f"the cache {place} is not used: {_said(error)}")
                    size = 0
                self._work.emit(Progress(name, name, size, size, self._work.clock(), done=True))
            self._is_read = True

    def _read_place(self, place: CacheFrom) -> int:
        """Take in what the place holds; the number of bytes of its root."""
        source, root = open_place(place, self._store, self._registries)
        for found in read_cache(source, root):
            for remembered in found.document.records:
                self._records.setdefault(remembered.key, []).append((remembered, str(place)))
            for diff_id, blob in found.blobs:
                self._blobs.setdefault(diff_id, []).append((source, blob, str(place)))
            for image in found.document.images:
                self._images.setdefault((image.reference, image.platform), (image, str(place)))
        return root.size

    def _warn(self, text: str) -> None:
        self._work.emit(Diagnostic(Severity.WARNING, "", text))

    # Records --------------------------------------------------------------------------------

    def look_up(self, keys: Sequence[Key], *, fits: Callable[[Stack], bool]) -> Stack | None:
        """The result that some place has under the first of these keys that it has; one that does
        not fit is told and forgotten.
        """
        self._read()
        for key in keys:
            for wrong in [p for p in self._records.get(key.digest, ()) if not fits(p[0].result)]:
                self._forget(*wrong)
        found = self.find([key.digest for key in keys])
        return found[0].result if found is not None else None

    def _forget(self, remembered: Remembered, origin: str) -> None:
        with self._guard:
            known = self._records.get(remembered.key, [])
            self._records[remembered.key] = [pair for pair in known if pair[0] is not remembered]
        self._warn(
            f"a record of the cache {origin} is not used: no result of"
            f" {remembered.name[:100] or 'its step'} has such layers"
        )

    def find(self, keys: Sequence[Digest]) -> tuple[Remembered, str] | None:
        """The record of the first key that has a usable one, and the place that it is from."""
        self._read()
        for key in keys:
            for remembered, origin in self._records.get(key, ()):
                if self._can_have(remembered.result):
                    return remembered, origin
        return None

    @property
    def is_read(self) -> bool:
        """Whether the places had to be asked."""
        return self._is_read

    def of_result(self, result: Stack) -> list[Remembered]:
        """Every record of this result, if the places were read at all."""
        if not self._can_have(result):
            return []
        every = [found for pairs in self._records.values() for found, _ in pairs]
        return [found for found in every if found.result == result]

    def _can_have(self, result: Stack) -> bool:
        return all(
            diff_id not in self._lost
            and (
                diff_id in self._blobs or diff_id in self._bases or self._is_here(result, position)
            )
            for position, diff_id in enumerate(result)
        )

    def take(self, vertex: Digest, keys: Sequence[Key], records: list[CacheRecord]) -> None:
        """Note that the vertex has its result from here: `records` are for the store, once all
        layers have arrived.
        """
        found = self.find([key.digest for key in keys])
        self.used[vertex] = found[1] if found is not None else ""
        self._waiting.append((records[0].result, records))

    def keep(self) -> None:
        """Put the records into the store whose layers are all there by now."""
        waiting, self._waiting = self._waiting, []
        for result, records in waiting:
            if all(self._is_here(result, position) for position in range(len(result))):
                self._store.metadata.put_cache(records)

    # Base images ----------------------------------------------------------------------------

    def image(self, reference: str, platform: str) -> ImportedImage | None:
        """What the name of a base image meant, every document of it verified."""
        self._read()
        found = self._images.get((reference, platform))
        if found is None or (reference, platform) in self._refused:
            return None
        image, origin = found
        try:
            verified = _verified(image, origin)
            return verified if self._lost.isdisjoint(verified.config.diff_ids) else None
        except LaminaError as error:
            self._warn(f"the cache {origin} is wrong about {reference}: {_said(error)}")
            self._refused.add((reference, platform))
            return None

    def documents(self, reference: str, platform: str) -> tuple[str, ...] | None:
        """The documents of a base image, as they were imported."""
        found = self._images.get((reference, platform))
        is_refused = (reference, platform) in self._refused
        return found[0].documents if found is not None and not is_refused else None

    def take_image(self, reference: str, platform: str, config: ImageConfig) -> None:
        """Note that the build stands on this image though it is not in the store."""
        for diff_id in config.diff_ids:
            self._bases[diff_id] = (reference, platform)

    # Layers ---------------------------------------------------------------------------------

    def blob(self, diff_id: DiffID) -> Descriptor | None:
        """A blob of a layer that is not in the store, where it was imported from."""
        known = self._blobs.get(diff_id)
        return known[0][1] if known else None

    def bring(self, stack: Stack, cancel: CancelToken) -> None:
        """Have every layer of the stack in the store, those that no place has excepted.

        Raises:
            LayerLost: a place had one and does not give it.
        """
        missing = [
            diff_id
            for position, diff_id in enumerate(stack)
            if (diff_id in self._blobs or diff_id in self._bases or diff_id in self._lost)
            and not self._is_here(stack, position)
        ]
        if len(missing) < 2:
            for diff_id in missing:
                self._fetch(diff_id, cancel)
            return
        with TaskGroup(cancel) as group:

            def work() -> None:
                while missing:
                    try:
                        diff_id = missing.pop()
                    except IndexError:
                        return
                    self._fetch(diff_id, group.token)

            for _ in range(min(_JOBS, len(missing))):
                group.start(work, name="import-layer")

    def _is_here(self, stack: Stack, position: int) -> bool:
        """Whether the layer is in the store, as a blob or unpacked."""
        layer = self._store.metadata.get_layer(stack[position])
        if layer is None:
            return False
        if any(self._store.content.exists(blob.digest) for blob in layer.blobs):
            return True
        return self._store.snapshots.exists(chain_ids(stack[: position + 1])[-1])

    def _fetch(self, diff_id: DiffID, cancel: CancelToken) -> None:
        with self._store.lock(f"import:{diff_id}", cancel=cancel):
            if self._has_blob(diff_id):
                return
            for source, blob, origin in self._blobs.get(diff_id, ()):
                try:
                    self._fetch_from(source, blob, cancel)
                    if self._has_blob(diff_id):
                        return
                    text = f"blob {blob.digest} does not hold it"
                except (LaminaError, OSError) as error:
                    if isinstance(error, LaminaError) and error.kind is Kind.EXHAUSTED:
                        raise
                    text = _said(error)
                self._warn(f"layer {diff_id.short()} of the cache {origin} is not used: {text}")
            if self._pulled(diff_id):
                return
        if diff_id not in self._lost:
            self._lost.add(diff_id)
            self._is_to_repeat = True
        raise LayerLost(f"layer {diff_id} of an imported cache cannot be had")

    def _has_blob(self, diff_id: DiffID) -> bool:
        layer = self._store.metadata.get_layer(diff_id)
        return layer is not None and any(
            self._store.content.exists(blob.digest) for blob in layer.blobs
        )

    def _fetch_from(self, source: Source, blob: Descriptor, cancel: CancelToken) -> None:
        """Fetch a blob and record what it really holds. Raises LaminaError, OSError."""
        end = StoreEnd(self._store)
        name = f"importing layer {blob.digest.short()}"

        def report(current: int, *, done: bool = False) -> None:
            at = self._work.clock()
            self._work.emit(
                Progress(f"import {blob.digest}", name, current, blob.size, at, done=done)
            )

        if end.exists(blob):
            end.record_layer(blob, cancel)
            return
        report(0)
        end.put(blob, source, report=report, cancel=cancel)
        report(blob.size, done=True)

    def _pulled(self, diff_id: DiffID) -> bool:
        """Try the registry of the base image that has the layer."""
        image = self._bases.get(diff_id)
        if image is None or image in self._refused:
            return False
        try:
            self._pull(*image)
        except LaminaError as error:
            self._warn(f"{image[0]} cannot be pulled either: {_said(error)}")
            self._refused.add(image)
            for known in [known for known, whose in self._bases.items() if whose == image]:
                del self._bases[known]
            return False
        return self._has_blob(diff_id)

    def is_to_repeat(self) -> bool:
        """Whether a layer was lost since this was asked last: the build has to begin again."""
        found, self._is_to_repeat = self._is_to_repeat, False
        if found:
            self._waiting.clear()
            self.used.clear()
        return found

    # Explanations ---------------------------------------------------------------------------

    def origin_of(self, key: str) -> str:
        """The place that has a record of this key; empty: none."""
        pairs = self._records.get(Digest.parse(key), ())
        return pairs[0][1] if pairs else ""

    def history(self, own: KeyHistory, site: str) -> KeyHistory:
        """`own` together with what was imported, which counts as made in `site`."""
        return _JoinedHistory(own, self._records, site)


def _verified(image: BaseImage, origin: str) -> ImportedImage:
    """The image, if each document is named by the one before it. Raises LaminaError."""
    raws = [text.encode() for text in image.documents]
    for above, below in pairwise(raws):
        kind = manifest_type(above, "", name=image.reference)
        digest = Digest.of(below)
        if digest not in {child.digest for child in children(kind, above)}:
            raise LaminaError(f"{digest} is not part of it", kind=Kind.INTEGRITY)
    root = Digest.of(raws[0])
    pinned = image.reference.partition("@")[2]
    if pinned and str(root) != pinned:
        raise LaminaError(f"{root} is another image", kind=Kind.INTEGRITY)
    return ImportedImage(root, Digest.of(raws[-2]), ImageConfig.parse(raws[-1]), origin)


class _JoinedHistory:
    """See `store.ports.KeyHistory`."""

    def __init__(
        self, own: KeyHistory, records: dict[Digest, list[tuple[Remembered, str]]], site: str
    ) -> None:
        self._own = own
        self._records = records
        self._site = site

    def names(self, stage: str, *, before: float) -> list[tuple[str, str]]:
        mine = self._own.names(stage, before=before)
        known = {key for _, key in mine}
        theirs = [
            (pairs[0][0].name, str(key))
            for key, pairs in self._records.items()
            if pairs and pairs[0][0].tree and split_name(pairs[0][0].name)[0] == stage
        ]
        return [*mine, *(pair for pair in theirs if pair[1] not in known)]

    def instructions(self, text: str, *, before: float) -> list[str]:
        mine = self._own.instructions(text, before=before)
        theirs = [
            str(key)
            for key, pairs in self._records.items()
            if pairs and pairs[0][0].tree and pairs[0][0].name.endswith(f"] {text}")
        ]
        return list(dict.fromkeys([*mine, *theirs]))

    def trees(self, keys: Sequence[str], *, before: float | None = None) -> list[EarlierKey]:
        found = self._own.trees(keys, before=before)
        known = {row.key for row in found}
        for key in keys:
            pairs = self._records.get(Digest.parse(key), ()) if key not in known else ()
            if pairs and pairs[0][0].tree:
                each = pairs[0][0]
                tree = with_site(each.tree, self._site)
                found.append(EarlierKey(key, each.name, tree, each.created))
        return found

    def was_pruned(self, key: str) -> bool:
        return self._own.was_pruned(key)

    def of_results(self, results: Sequence[Stack]) -> list[CacheRecord]:
        return self._own.of_results(results)


def _said(error: Exception) -> str:
    text = error.what if isinstance(error, LaminaError) else str(error)
    return text.split("\n", 1)[0]
