# SPDX-License-Identifier: Apache-2.0
"""`lamina system fsck`: what is damaged in the store, and repairing it.

Repairing loses nothing that is sound: a damaged file goes to `quarantine/` in the store, a manifest or
config is put back from the database's copy, a blob is fetched again from the registries of the images
that need it or made again from its snapshot, a snapshot is unpacked again. Documents (manifests, configs) that cannot be had again stay where they
are: while they are there GC keeps what they point to, until the image is removed.
"""

from __future__ import annotations

import json
import os

from lamina.container.lifecycle import remove_stray
from lamina.errors import Kind, LaminaError
from lamina.image.unpack import ensure_blob
from lamina.registry.storeend import StoreEnd
from lamina.spec import mediatype
from lamina.spec.digest import DiffID, Digest
from lamina.spec.identity import chain_ids
from lamina.spec.reference import Reference, is_dangling
from lamina.start.record import Record
from lamina.store.cachemounts import remove_unnamed
from lamina.store.copies import find_copy, forget_copies
from lamina.store.fsck import (
    MOUNT,
    Finding,
    Fsck,
    Needed,
)
from lamina.store.fsck_snapshots import Fresh, SnapshotCheck, Stacked, quarantined, sound_blobs
from lamina.store.local import LocalStore
from lamina.system.removal import remove_tree
from lamina.system.userns import enter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.registry.client import Registries, Repository
    from lamina.spec.descriptor import Descriptor
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken, Work


class Outcome(Record):
    """A finding, and what became of it: `state` is `damaged` (nothing was tried), `repaired`, `lost`,
    or `stray`; `done` says what was done, or why not.
    """

    finding: Finding
    state: str
    done: str = ""

    @property
    def is_bad(self) -> bool:
        """Whether something is still wrong."""
        return self.state in {"damaged", "lost"}


class Report(Record):
    """Everything that was found; `unchecked` snapshots have nothing to be compared with."""

    outcomes: tuple[Outcome, ...]
    blobs: int
    snapshots: int
    unchecked: int

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged, or all of it was repaired."""
        return not any(outcome.is_bad for outcome in self.outcomes)


def check_store(
    store: Store, *, repair: bool = False, registries: Registries | None = None, work: Work
) -> Report:
    """Look at everything, and with `repair` mend it, from `registries` if they are given.

    Raises:
        LaminaError: as `userns.enter`: layers have files of other owners.
    """
    assert isinstance(store, LocalStore)
    enter()
    with store.lease("fsck"):
        look = Fsck(store, work=work)
        first = look.database()
        outcomes: list[Outcome] = []
        if first and not repair:
            none = Needed({}, {}, {})
            found = [*first, *look.blobs(none)]
            outcomes = [_outcome(each, None) for each in found]
            return Report(tuple(outcomes), _count(store), 0, 0)
        if first:
            outcomes = [_mend_database(store, look, each) for each in first]
        needed, missing = look.needed()
        found = [*look.blobs(needed), *missing, *look.layers(), *look.rows(), *look.layout()]
        mender = _Mender(store, needed, registries, look, work.cancel) if repair else None
        outcomes += [_outcome(each, mender) for each in found]
        if mender is not None and mender.has_fetched:
            needed, more = look.needed()  # documents that came back tell of more
            mender.needed = needed
            outcomes += [_outcome(each, mender) for each in more if each not in missing]
        snapshots = SnapshotCheck(store, needed, look.damaged, cancel=work.cancel)
        stacked = {each.chain: each for each in snapshots.stacked()}
        for each in [*snapshots.run(), *look.strays()]:
            if mender is not None:
                mender.stacked = stacked
            outcomes.append(_outcome(each, mender))
        return Report(tuple(outcomes), _count(store), len(stacked), snapshots.unchecked)


def _count(store: LocalStore) -> int:
    return sum(1 for _ in store.content.walk())


def _outcome(finding: Finding, mender: _Mender | None) -> Outcome:
    if mender is None:
        return Outcome(finding, "damaged" if finding.is_damage else "stray")
    try:
        return mender.mend(finding)
    except (LaminaError, OSError) as error:
        return Outcome(finding, "lost", str(error))


def _mend_database(store: LocalStore, look: Fsck, finding: Finding) -> Outcome:
    """Made again if sqlite cannot use it; else its indexes are."""
    store.database.rebuild(f"{finding.subject} is damaged")
    if look.database():
        store.database.write(lambda transaction: transaction.run("REINDEX"))
    if look.database():
        return Outcome(finding, "lost", "it cannot be made again")
    return Outcome(finding, "repaired", "rebuilt from its readable rows, index.json and the blobs")


class _Mender:
    """Repairs findings one by one."""

    def __init__(
        self,
        store: LocalStore,
        needed: Needed,
        registries: Registries | None,
        look: Fsck,
        cancel: CancelToken,
    ) -> None:
        self._store = store
        self.needed = needed
        self._registries = registries
        self._look = look
        self._cancel = cancel
        self.stacked: dict[str, Stacked] = {}
        self.has_fetched = False

    def mend(self, finding: Finding) -> Outcome:
        """What became of it. Raises LaminaError, OSError: it is lost."""
        match finding.part:
            case "blob" | "missing":
                return self._blob(finding)
            case "snapshot":
                return self._snapshot(finding)
            case "layout":
                return self._layout(finding)
            case "cache":
                self._forget("DELETE FROM cache WHERE key = ?", finding.subject)
                return Outcome(finding, "repaired", "forgotten: the step runs again")
            case "copy":
                self._store.database.write(
                    lambda transaction: forget_copies(transaction, [finding.subject])
                )
                return Outcome(
                    finding, "repaired", "forgotten: the next collection copies it again"
                )
            case "image":
                hint = "lamina cannot use it: remove the image, and build or pull it again"
                return Outcome(finding, "lost", hint)
            case "layer":
                diff_id, _, digest = finding.subject.partition(" ")
                statement = "DELETE FROM layer_blobs WHERE diff_id = ? AND digest = ?"
                self._forget(statement, diff_id, digest)
                return Outcome(finding, "repaired", "the record is forgotten, the blob stays")
            case "cache mount" | "stray":
                return self._stray(finding)
        return Outcome(finding, "lost", "there is no second copy")

    def _forget(self, statement: str, *values: str) -> None:
        self._store.database.write(lambda transaction: transaction.run(statement, values))

    # Blobs ----------------------------------------------------------------------------------------

    def _blob(self, finding: Finding) -> Outcome:
        digest = Digest.parse(finding.subject)
        descriptor = self.needed.descriptors.get(finding.subject)
        is_document = descriptor is not None and not mediatype.is_layer(descriptor.media_type)
        if descriptor is not None and is_document:
            copy = find_copy(self._store.database, digest)
            if copy is not None:
                self._set_aside(digest)
                StoreEnd(self._store).put_document(descriptor, copy)
                return self._mended(finding, "put back from the database's copy")
            raw, source = self._fetched_document(descriptor, finding)
            self._set_aside(digest)
            StoreEnd(self._store).put_document(descriptor, raw)
            return self._mended(finding, f"fetched again from {source}")
        self._set_aside(digest)
        remade = self._remade(digest)
        if remade is not None:
            return self._mended(finding, remade)
        if descriptor is None:
            return self._mended(finding, "no image needs it: put into quarantine")
        try:
            return self._mended(finding, self._fetched_layer(descriptor, finding))
        except LaminaError as error:
            if self._is_unpacked(descriptor):
                return Outcome(finding, "repaired", f"kept unpacked only; {error}")
            raise

    def _mended(self, finding: Finding, done: str) -> Outcome:
        self._look.damaged.discard(finding.subject)
        return Outcome(finding, "repaired", done)

    def _set_aside(self, digest: Digest) -> None:
        path = self._store.content.path(digest)
        if os.path.lexists(path):
            os.rename(path, quarantined(self._store, f"{digest.algorithm}-{digest.hex}"))

    def _sources(self, finding: Finding) -> Iterator[tuple[str, Repository]]:
        """The repositories of the images that need it."""
        if self._registries is None:
            return
        tried: set[str] = set()
        for name in finding.images:
            if is_dangling(name):
                continue
            reference = Reference.parse(name)
            if reference.name not in tried:
                tried.add(reference.name)
                yield reference.name, self._registries.repository(reference)

    def _fetched_document(self, descriptor: Descriptor, finding: Finding) -> tuple[bytes, str]:
        failure = _nowhere(finding)
        for name, repository in self._sources(finding):
            try:
                if descriptor.media_type in mediatype.MANIFESTS | mediatype.INDEXES:
                    raw = repository.document(descriptor)
                else:
                    with repository.open(descriptor) as stream:
                        raw = stream.read(descriptor.size + 1)
            except LaminaError as error:
                failure = error
                continue
            if Digest.of(raw, algorithm=descriptor.digest.algorithm) == descriptor.digest:
                self.has_fetched = True
                return raw, name
        raise failure

    def _fetched_layer(self, descriptor: Descriptor, finding: Finding) -> str:
        failure = _nowhere(finding)
        for name, repository in self._sources(finding):
            try:
                StoreEnd(self._store).put(
                    descriptor, repository, report=lambda _: None, cancel=self._cancel
                )
            except LaminaError as error:
                failure = error
                continue
            return f"fetched again from {name}"
        raise failure

    def _layers_of(self, digest: str) -> list[tuple[DiffID, str]]:
        """The layers that a blob holds, with their compression."""
        query = "SELECT diff_id, media_type FROM layer_blobs WHERE digest = ?"
        return [
            (DiffID(Digest.parse(diff_id)), mediatype.LAYER_COMPRESSION.get(kind, ""))
            for diff_id, kind in self._store.database.read(query, (digest,))
        ]

    def _remade(self, digest: Digest) -> str | None:
        """Made again from the snapshot, if that gives the same bytes."""
        for diff_id, compression in self._layers_of(str(digest)):
            for stack in self.needed.stacks:
                if diff_id not in stack or not compression:
                    continue
                try:
                    ensure_blob(
                        self._store,
                        stack,
                        stack.index(diff_id),
                        cancel=self._cancel,
                        compression=compression,
                    )
                except (LaminaError, OSError):
                    continue
                if self._store.content.exists(digest):
                    return "made again from its snapshot"
        return None

    def _is_unpacked(self, descriptor: Descriptor) -> bool:
        """Whether the layer's snapshot is here in every image that needs it."""
        diff_ids = {diff_id for diff_id, _ in self._layers_of(str(descriptor.digest))}
        uses = [
            chain
            for stack in self.needed.stacks
            for diff_id, chain in zip(stack, chain_ids(stack), strict=True)
            if diff_id in diff_ids
        ]
        return bool(uses) and all(self._store.snapshots.exists(chain) for chain in uses)

    # The rest -------------------------------------------------------------------------------------

    def _snapshot(self, finding: Finding) -> Outcome:
        each = self.stacked.get(finding.subject)
        if each is None:
            return Outcome(finding, "lost", "it is a container's or a build's own")
        if each.stack:
            blobs = sound_blobs(self._store, each.stack[-1], self._look.damaged)
            if blobs:
                with Fresh(self._store, each, blobs, cancel=self._cancel) as fresh:
                    fresh.take_place()
                return Outcome(finding, "repaired", "unpacked again from its blob")
        if finding.images:
            return Outcome(finding, "lost", "no blob of the layer is here: pull the images again")
        self._forget_results(each.chain)
        return Outcome(finding, "repaired", "only the cache had it: its steps run again")

    def _forget_results(self, chain: str) -> None:
        """Forget cache records that stand on the snapshot, and the snapshot as far as it is free."""
        for key, text in self._store.database.read("SELECT key, result FROM cache"):
            stack = [DiffID(Digest.parse(part)) for part in json.loads(text)]
            if chain in map(str, chain_ids(stack)):
                self._forget("DELETE FROM cache WHERE key = ?", key)
        self._remove_with_children(chain)

    def _remove_with_children(self, chain: str) -> None:
        query = "SELECT name FROM snapshots WHERE parent = ?"
        found = [chain]
        for each in found:  # it grows: an image may have thousands of layers
            found += [str(child) for (child,) in self._store.database.read(query, (each,))]
        for each in reversed(found):
            self._store.snapshots.remove(each)

    def _layout(self, finding: Finding) -> Outcome:
        self._store.rewrite_layout()
        return Outcome(finding, "repaired", "written again from the database")

    def _stray(self, finding: Finding) -> Outcome:
        if finding.part == MOUNT:
            freed = remove_unnamed(self._store.root, os.path.basename(finding.subject))
            return Outcome(finding, "repaired", f"removed, {freed} bytes")
        path = os.path.join(self._store.root, finding.subject)
        if finding.subject.startswith("blobs"):
            os.rename(path, quarantined(self._store, finding.subject.replace("/", "-")))
            return Outcome(finding, "repaired", "put into quarantine")
        if finding.subject.startswith("containers"):
            freed = remove_stray(self._store, os.path.basename(path))
            if os.path.lexists(path):
                return Outcome(finding, "stray", "left alone: it is being made or removed")
            return Outcome(finding, "repaired", f"removed, {freed} bytes")
        return Outcome(finding, "repaired", f"removed, {remove_tree(path)} bytes")


def _nowhere(finding: Finding) -> LaminaError:
    return LaminaError(
        "no registry to fetch it from" if finding.images else "nothing says where it came from",
        kind=Kind.NOT_FOUND,
    )
