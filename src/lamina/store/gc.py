# SPDX-License-Identifier: Apache-2.0
"""Garbage collection: mark what is reachable, sweep what is not and is old enough.

Roots are names (and what they pointed to since the oldest live lease began), cache records,
documents' pins and the caller's. A manifest keeps its blobs; a config keeps the layers and
snapshots of its diffIDs; a snapshot keeps those below it. Whatever was made or used since the
oldest live lease began stays (leases.py has the rules), so a build never fails because GC ran
beside it. Blobs are removed first: on a full disk that makes the room which sqlite needs.

What a document needs that cannot be used any more: its copy in the database says it (copies); of one
that is whole but not as lamina reads them, all that it mentions is kept. Only what is damaged and has
no copy keeps every blob and every committed snapshot. Each is told in a notice.
"""

from __future__ import annotations

import os
import re

from lamina.errors import Kind, LaminaError
from lamina.events import Notice, silent
from lamina.spec import mediatype
from lamina.spec.config import ImageConfig
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import DiffID, Digest
from lamina.spec.document import MAX_DOCUMENT, parse_object
from lamina.spec.identity import chain_ids
from lamina.spec.manifest import children
from lamina.start.jsontext import loads
from lamina.start.record import Record
from lamina.store import cachemounts
from lamina.store.content import remove_unheld_ingests
from lamina.store.copies import copied, find_copy, forget_copies, is_document, put_copies
from lamina.store.faults import disk_error
from lamina.store.keyhistory import remember_pruned
from lamina.system.locks import FileLock
from lamina.system.removal import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lamina.events import Emitter
    from lamina.store.database import Transaction
    from lamina.store.local import LocalStore

_BATCH = 256  # blobs removed in one hold of the sweep lock: a touch waits that long at most
_STAT_CACHE_AGE = 30 * 86400.0  # seconds; a context not built for a month is hashed anew
_COARSE = 1.0  # seconds; the kernel's stamps on files being written lag behind the clock
_ROOM = 64 << 20  # bytes that must be free for copies of documents
_LARGEST = 64 << 20  # bytes of a document here, which may be from before its size had a bound
_MENTIONED = re.compile(rb"sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128})")
_LOCK_NAME = 64  # hex digits: locks of `Store.lock`, which may be deleted while nobody holds them


NOTHING: frozenset[str] = frozenset()


class Evicted(Record):
    """What is to go: keys of cache records, paths of cache mounts; `ids` are for people, the least
    recently used first, and `bytes` an estimate of what becomes free.
    """

    keys: frozenset[str] = NOTHING
    mounts: frozenset[str] = NOTHING
    ids: tuple[str, ...] = ()
    bytes: int = 0

    def united(self, other: Evicted) -> Evicted:
        """What either of them names."""
        return Evicted(
            self.keys | other.keys,
            self.mounts | other.mounts,
            tuple(dict.fromkeys(self.ids + other.ids)),
            max(self.bytes, other.bytes),
        )


class Collected(Record):
    """What GC removed: bytes of disk, number of blobs and of snapshots."""

    bytes: int
    blobs: int
    snapshots: int


class Marked(Record):
    """What names and documents keep: digests of blobs, diffIDs, names of snapshots, as texts."""

    blobs: frozenset[str]
    layers: frozenset[str]
    snapshots: frozenset[str]


class GcBusy(LaminaError):
    """Another process collects right now."""

    kind = Kind.UNAVAILABLE


def mark_in_use(store: LocalStore) -> Marked:
    """What images and containers need, without the build cache."""
    mark = _Mark(store)
    mark.names(store.clock())
    mark.documents()
    return Marked(frozenset(mark.blobs), frozenset(mark.layers), frozenset(mark.snapshots))


def mark_of(store: LocalStore, targets: Iterable[Descriptor]) -> Marked:
    """What these manifests or indexes need."""
    mark = _Mark(store)
    for target in targets:
        mark._graph(target.digest, target.media_type)
    return Marked(frozenset(mark.blobs), frozenset(mark.layers), frozenset(mark.snapshots))


def collect(
    store: LocalStore,
    *,
    keep_cache: bool = True,
    roots: Iterable[str] = (),
    evict: Evicted | None = None,
    deadline: float | None = None,
    emit: Emitter = silent,
) -> Collected:
    """Remove what nothing needs. One collector at a time; a second one waits.

    `evict` names cache records and cache mounts that are to go unless they are in use. With a
    `deadline` (POSIX seconds) nothing more is removed after it, the rest is left to the next
    collection, and a collector that finds another one at work raises GcBusy.

    `roots` are texts as in a document's `pins`. Leases of the calling thread do not hold anything
    back, those of other threads and processes do. Works with no byte free.

    Raises:
        LaminaError: kind SYSTEM or DENIED: something cannot be removed.
    """
    lock = FileLock(os.path.join(store.root, "locks", "gc"))
    try:
        if deadline is None:
            lock.acquire()
        elif not lock.try_acquire():
            raise GcBusy("another process collects garbage")
        try:
            collection = _Collection(
                store, keep_cache=keep_cache, evict=evict, deadline=deadline, emit=emit
            )
            return collection.run(tuple(roots))
        finally:
            lock.release()
    except OSError as error:
        raise disk_error(error, "cannot collect garbage") from error


class _Collection:
    def __init__(
        self,
        store: LocalStore,
        *,
        keep_cache: bool,
        evict: Evicted | None,
        deadline: float | None,
        emit: Emitter,
    ) -> None:
        self._store = store
        self._keep_cache = keep_cache
        self._evict = evict.keys if evict is not None else frozenset()
        self._mounts = evict.mounts if evict is not None else frozenset()
        self._deadline = deadline
        self._emit = emit
        began = store.clock()  # before the leases are listed: one not seen began after this
        oldest = store.leases.oldest()
        self._before = began if oldest is None else min(began, oldest)

    def run(self, roots: Sequence[str]) -> Collected:
        mark = _Mark(self._store)
        mark.names(self._before)
        mark.cache(0.0 if self._keep_cache else self._before, self._evict, self._before)
        mark.documents()
        for text in roots:
            mark.pin(text)
        freed, blobs = (0, 0) if mark.unreadable else self._sweep_blobs(mark)
        freed += remove_unheld_ingests(
            os.path.join(self._store.root, "ingest"), before=self._before - _COARSE
        )
        snapshots, rubbish = self._sweep_rows(mark)
        directory = self._store.snapshots.directory
        for name in [*map(str, snapshots), *rubbish]:
            if self._is_late():
                break  # without a row they are rubbish, which the next collection removes
            freed += remove_tree(os.path.join(directory, name))
        if not self._keep_cache:
            freed += cachemounts.remove_idle(self._store.root)
        elif self._mounts:
            freed += cachemounts.remove_idle(self._store.root, self._mounts)
        self._store.metadata.refresh_index()
        self._remove_idle_locks()
        self._keep_copies(mark)
        self._store.reserve.fill()
        self._tell(mark)
        return Collected(freed, blobs, len(snapshots))

    def _keep_copies(self, mark: _Mark) -> None:
        """Add the copies that are missing, if there is room for them."""
        disk = os.statvfs(self._store.root)
        if not mark.uncopied or disk.f_bavail * disk.f_frsize < _ROOM:
            return
        try:
            self._store.database.write(lambda transaction: put_copies(transaction, mark.uncopied))
        except LaminaError as error:
            if error.kind is not Kind.EXHAUSTED:
                raise

    def _tell(self, mark: _Mark) -> None:
        if mark.unreadable:
            unreadable = ", ".join(sorted(mark.unreadable))
            self._emit(
                Notice(
                    "no blobs were removed, because what these damaged ones need is unknown:"
                    f" {unreadable}; remove the images that they belong to first"
                )
            )
        if mark.damaged:
            self._emit(
                Notice(
                    f"damaged, and all that they need is kept: {', '.join(sorted(mark.damaged))};"
                    " 'lamina system fsck' tells which images they belong to"
                )
            )

    def _sweep_blobs(self, mark: _Mark) -> tuple[int, int]:
        doomed = [
            self._store.content.path(blob.digest)
            for blob in self._store.content.walk()
            if str(blob.digest) not in mark.blobs
        ]
        freed = count = 0
        for start in range(0, len(doomed), _BATCH):
            if self._is_late():
                break
            with FileLock(self._store.leases.sweep_lock):
                for path in doomed[start : start + _BATCH]:
                    size = self._remove_if_old(path)
                    if size is not None:
                        freed += size
                        count += 1
        return freed, count

    def _is_late(self) -> bool:
        return self._deadline is not None and self._store.clock() >= self._deadline

    def _remove_if_old(self, path: str) -> int | None:
        """Bytes freed; None if it was made or used too lately, or is gone."""
        try:
            found = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if max(found.st_mtime, found.st_atime) >= self._before:
            return None
        os.unlink(path)
        return found.st_blocks * 512

    def _sweep_rows(self, mark: _Mark) -> tuple[list[int], list[str]]:
        """Ids of the snapshots whose rows were removed, and names of directories without a row."""
        return self._store.database.write(lambda transaction: self._sweep(transaction, mark))

    def _sweep(self, transaction: Transaction, mark: _Mark) -> tuple[list[int], list[str]]:
        self._sweep_cache(transaction)
        transaction.run("DELETE FROM former_names WHERE deleted < ?", (self._before,))
        transaction.run("DELETE FROM stat WHERE used < ?", (self._before - _STAT_CACHE_AGE,))
        doomed = self._doomed_snapshots(transaction, mark)
        for number in doomed:
            transaction.run("DELETE FROM snapshots WHERE id = ?", (number,))
        self._sweep_layers(transaction, mark)
        forget_copies(transaction, mark.copied - mark.blobs)
        return doomed, self._rubbish(transaction)

    def _sweep_cache(self, transaction: Transaction) -> None:
        """Delete records, unless they were used since; explanations of misses know of them."""
        if not self._keep_cache:
            rows = transaction.rows("SELECT key FROM cache WHERE last_used < ?", (self._before,))
            gone = [str(key) for (key,) in rows]
        else:
            gone = sorted(self._evict)
        removed = []
        for key in gone:
            statement = "DELETE FROM cache WHERE key = ? AND last_used < ?"
            if transaction.run(statement, (key, self._before)):
                removed.append(key)
        if removed:
            remember_pruned(transaction, removed)

    def _doomed_snapshots(self, transaction: Transaction, mark: _Mark) -> list[int]:
        """Decided inside the transaction: what was touched since the marking is seen here."""
        rows = transaction.rows("SELECT id, name, parent, used, committed FROM snapshots")
        parents = {name: parent for _, name, parent, _, _ in rows}
        kept: set[str] = set()
        for _, name, _, used, committed in rows:
            is_kept = name in mark.snapshots or used >= self._before
            step = name if is_kept or (committed and mark.unreadable) else None
            while step is not None and step not in kept:
                kept.add(step)
                step = parents.get(step)
        return [number for number, name, *_ in rows if name not in kept]

    def _sweep_layers(self, transaction: Transaction, mark: _Mark) -> None:
        """Forget blobs of layers that are gone, and layers of which nothing is left."""
        for diff_id, digest in transaction.rows("SELECT diff_id, digest FROM layer_blobs"):
            try:
                gone = not os.path.exists(self._store.content.path(Digest.parse(digest)))
            except LaminaError:  # a damaged row
                gone = True
            if gone:
                transaction.run(
                    "DELETE FROM layer_blobs WHERE diff_id = ? AND digest = ?", (diff_id, digest)
                )
        for (diff_id,) in transaction.rows(
            "SELECT diff_id FROM layers WHERE diff_id NOT IN (SELECT diff_id FROM layer_blobs)"
        ):
            if diff_id not in mark.layers and not mark.unreadable:
                transaction.run("DELETE FROM layers WHERE diff_id = ?", (diff_id,))

    def _rubbish(self, transaction: Transaction) -> list[str]:
        """Directories without a row, under new names: inside the transaction nobody else prepares,
        and after it an id can be given out again only if its transaction was rolled back.
        """
        directory = self._store.snapshots.directory
        numbers = {str(row[0]) for row in transaction.rows("SELECT id FROM snapshots")}
        rubbish: list[str] = []
        issued = transaction.row("SELECT seq FROM sqlite_sequence WHERE name = 'snapshots'")
        for name in os.listdir(directory):
            if name in numbers:
                continue
            if name.isdecimal() and (issued is None or int(name) > issued[0]):
                aside = f"{name}.rubbish.{os.getpid()}.{self._store.clock()}"
                os.rename(os.path.join(directory, name), os.path.join(directory, aside))
                name = aside  # noqa: PLW2901  # the directory's name from here on
            rubbish.append(name)
        return rubbish

    def _remove_idle_locks(self) -> None:
        directory = os.path.join(self._store.root, "locks")
        for name in os.listdir(directory):
            if len(name) != _LOCK_NAME:
                continue
            lock = FileLock(os.path.join(directory, name))
            if lock.try_acquire():
                os.unlink(lock.path)
                lock.release()


class _Mark:
    """What must stay: digests of blobs and diffIDs, and names of snapshots, as texts. `damaged`
    documents have told what they need all the same, `unreadable` ones have not. `copied` have a copy
    in the database, `uncopied` (with their bytes) should have one.
    """

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self.blobs: set[str] = set()
        self.layers: set[str] = set()
        self.snapshots: set[str] = set()
        self.damaged: set[str] = set()
        self.unreadable: set[str] = set()
        self.copied = copied(store.database)
        self.uncopied: dict[str, bytes] = {}

    def names(self, since: float) -> None:
        """The graphs of all names, and of what they pointed to at `since` or later."""
        for (text,) in self._store.database.read("SELECT DISTINCT target FROM names"):
            target = self._target(str(text))
            if target is not None and not self._store.content.exists(target.digest):
                is_known = find_copy(self._store.database, target.digest) is not None
                (self.damaged if is_known else self.unreadable).add(str(target.digest))
        query = "SELECT DISTINCT target FROM former_names WHERE deleted >= ?"
        for (text,) in self._store.database.read(query, (since,)):
            self._target(str(text))

    def _target(self, text: str) -> Descriptor | None:
        """What a name points to, marked; None if its row is damaged."""
        try:
            target = Descriptor.from_json(loads(text))
        except (LaminaError, ValueError):
            self.unreadable.add(text[:100])
            return None
        self._graph(target.digest, target.media_type)
        return target

    def cache(
        self, used_since: float, evict: frozenset[str] = frozenset(), before: float = 0.0
    ) -> None:
        """The layers and snapshots of cache records used at `used_since` or later, without those
        to `evict` that were last used before `before`.
        """
        rows = self._store.database.read(
            "SELECT key, result, last_used FROM cache WHERE last_used >= ?", (used_since,)
        )
        stacks = {text for key, text, used in rows if not (key in evict and used < before)}
        for text in stacks:
            try:
                self._stack([DiffID(Digest.parse(part)) for part in loads(text)])
            except (LaminaError, ValueError, TypeError, AttributeError):
                continue  # a damaged row: a miss when it is asked for

    def documents(self) -> None:
        """What documents of any kind pin; the snapshot whose key is a document's id is its own."""
        for id, text in self._store.database.read("SELECT id, body FROM documents"):
            self.snapshots.add(id)
            try:
                body = loads(text)
            except ValueError:
                continue  # not JSON: pins nothing
            if not isinstance(body, dict):
                continue
            pins = body.get("pins")
            for value in [*(pins if isinstance(pins, list) else ()), *_named_pins(body)]:
                if isinstance(value, str):
                    self.pin(value)

    def pin(self, text: str) -> None:
        """A snapshot's name, or the digest of a blob with all that it points to."""
        self.snapshots.add(text)
        try:
            digest = Digest.parse(text)
        except LaminaError:
            return  # a snapshot key
        self.layers.add(text)
        if self._store.content.exists(digest):
            self._graph(digest, "")

    def _graph(self, root: Digest, media_type: str) -> None:
        todo = [(root, media_type)]
        seen: set[str] = set()
        while todo:
            digest, kind = todo.pop()
            if str(digest) in seen:
                continue
            seen.add(str(digest))
            self.blobs.add(str(digest))
            if kind and not is_document(kind):
                continue
            raw = self._document(digest, kind)
            if raw is not None:
                todo += self._children(digest, kind or _guess(raw), raw)

    def _document(self, digest: Digest, kind: str) -> bytes | None:
        """The document's bytes, or those of its copy; None if it is not here or damaged."""
        content = self._store.content
        is_here = content.exists(digest)
        if is_here and not kind and content.info(digest).size > MAX_DOCUMENT:
            return None  # pinned without a media type, and too large for a document: a layer
        try:
            raw = content.read(digest, limit=_LARGEST) if is_here else None
        except LaminaError:
            raw = None
        if raw is not None:
            if kind and len(raw) <= MAX_DOCUMENT and str(digest) not in self.copied:
                self.uncopied[str(digest)] = raw
            return raw
        copy = find_copy(self._store.database, digest)
        if is_here:  # else it was never pulled
            (self.unreadable if copy is None else self.damaged).add(str(digest))
        return copy

    def _children(self, digest: Digest, kind: str, raw: bytes) -> list[tuple[Digest, str]]:
        if kind in mediatype.CONFIGS:
            self._config(digest, raw)
            return []
        try:
            return [(child.digest, child.media_type) for child in children(kind, raw)]
        except LaminaError:
            self.damaged.add(str(digest))
        return [(Digest.parse(text.decode()), "") for text in _MENTIONED.findall(raw)]

    def _config(self, digest: Digest, raw: bytes) -> None:
        try:
            stack = ImageConfig.parse(raw).diff_ids
        except LaminaError:
            self.damaged.add(str(digest))
            stack = _diff_ids(raw)
        self._stack(stack)

    def _stack(self, diff_ids: Sequence[DiffID]) -> None:
        self.snapshots.update(str(chain) for chain in chain_ids(diff_ids))
        for diff_id in diff_ids:
            if str(diff_id) in self.layers:
                continue
            self.layers.add(str(diff_id))
            layer = self._store.metadata.get_layer(diff_id)
            if layer is not None:
                self.blobs.update(str(blob.digest) for blob in layer.blobs)


def _named_pins(body: dict[str, object]) -> tuple[object, ...]:
    return (body.get("chain"), body.get("snapshot"))


def _diff_ids(raw: bytes) -> tuple[DiffID, ...]:
    """The layers of a config that is too large or too strange to be used; one that does not say even
    those was never unpacked.
    """
    try:
        rootfs = parse_object(raw, what="image config", limit=_LARGEST).get("rootfs")
        texts = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        return tuple(DiffID(Digest.parse(str(text))) for text in texts or ())
    except (LaminaError, TypeError):
        return ()


def _guess(raw: bytes) -> str:
    """The media type of a pinned document, from its own fields; empty if it is something else."""
    try:
        document = loads(raw)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(document, dict):
        return ""
    if "manifests" in document:
        return str(document.get("mediaType") or mediatype.OCI_INDEX)
    if "layers" in document:
        return str(document.get("mediaType") or mediatype.OCI_MANIFEST)
    return mediatype.OCI_CONFIG if "rootfs" in document else ""
