# SPDX-License-Identifier: Apache-2.0
"""Names, layers, cache records and stat caches in sqlite (ports.Metadata)."""

from __future__ import annotations

import os

from lamina.errors import Kind, LaminaError
from lamina.events import Notice
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import DiffID, Digest
from lamina.spec.document import dump
from lamina.start.hashing import sha256_of
from lamina.start.jsontext import dumps, loads
from lamina.store import layoutindex
from lamina.store.faults import disk_error
from lamina.store.ports import CacheRecord, LayerRecord, NamedImage
from lamina.system.locks import FileLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lamina.events import Emitter
    from lamina.store.content import Content
    from lamina.store.database import Database, Row, Transaction
    from lamina.store.durability import Durability
    from lamina.store.leases import Leases
    from lamina.store.reserve import Reserve
    from lamina.store.snapshots import Snapshots

_FRESH = 3600.0  # seconds: `last_used` is not written again within this, so that hits only read
_MAX_VARIABLES = 500  # below sqlite's limit of 999 in old builds


class MetadataTables:
    """The metadata of one store."""

    def __init__(
        self,
        root: str,
        database: Database,
        *,
        content: Content,
        snapshots: Snapshots,
        durability: Durability,
        leases: Leases,
        reserve: Reserve,
        clock: Callable[[], float],
        emit: Emitter,
    ) -> None:
        self._root = root
        self._names_lock = os.path.join(root, "locks", "names")
        self._database = database
        self._content = content
        self._snapshots = snapshots
        self._durability = durability
        self._leases = leases
        self._reserve = reserve
        self._clock = clock
        self._emit = emit

    # Names. Every change holds locks/names: index.json is staged before the transaction (so that a
    # full disk changes nothing) and renamed after it; `generation` tells whether it has followed.

    def set_names(self, names: Sequence[str], target: Descriptor) -> None:
        if not self._content.exists(target.digest):
            raise LaminaError(
                f"cannot name {', '.join(names)}: blob {target.digest} is not in the store",
                kind=Kind.NOT_FOUND,
            )
        text = _descriptor_text(target)
        if self._all_point_to(names, text) and self._index_is_current():
            return
        from lamina.store.copies import put_copies, read_documents

        documents = read_documents(self._content, target)
        unflushed = self._snapshots.unflushed()
        self._durability.flush()
        now = self._clock()

        def work(transaction: Transaction) -> None:
            for name in names:
                self._remember_former(transaction, name, keep=text)
                transaction.run(
                    "INSERT INTO names VALUES (?, ?, ?) ON CONFLICT(name) DO UPDATE SET"
                    " target = excluded.target, updated = excluded.updated"
                    " WHERE target <> excluded.target",
                    (name, text, now),
                )
            put_copies(transaction, documents)
            self._snapshots.flushed(transaction, unflushed)

        self._change_names(work, added=dict.fromkeys(names, target))

    def get_name(self, name: str) -> NamedImage | None:
        rows = self._database.read(
            "SELECT name, target, updated FROM names WHERE name = ?", (name,)
        )
        return _named(rows[0]) if rows else None

    def list_names(self) -> list[NamedImage]:
        rows = self._database.read("SELECT name, target, updated FROM names ORDER BY name")
        images: list[NamedImage] = []
        for row in rows:
            try:
                images.append(_named(row))
            except LaminaError as error:  # one bad row must not hide the others
                self._emit(Notice(f"{error}; {error.hint}"))
        return images

    def delete_names(self, names: Sequence[str | NamedImage]) -> list[str]:
        gone: list[str] = []

        def choose(now: Mapping[str, Descriptor]) -> list[str]:
            gone.extend(name for each in names if (name := _doomed(now, each)))
            return gone

        def work(transaction: Transaction) -> None:
            for name in gone:
                self._remember_former(transaction, name)
                transaction.run("DELETE FROM names WHERE name = ?", (name,))

        self._change_names(work, remove=choose)
        return gone

    def refresh_index(self) -> None:
        """Write index.json again if a process died before it had followed the names."""
        if not self._index_is_current():
            self._change_names(lambda _: None)

    def rewrite_index(self) -> None:
        """Write index.json again, whatever it is now."""
        self._change_names(lambda _: None)

    def _change_names(
        self,
        work: Callable[[Transaction], None],
        *,
        added: dict[str, Descriptor] | None = None,
        remove: Callable[[Mapping[str, Descriptor]], Sequence[str]] = lambda _: (),
    ) -> None:
        try:
            with FileLock(self._names_lock):
                after = {named.name: named.target for named in self.list_names()}
                removed = frozenset(remove(after))
                after.update(added or {})
                entries = [(name, after[name]) for name in sorted(after) if name not in removed]
                index = layoutindex.serialise_index(entries)
                if added and len(index) > layoutindex.MAX_INDEX:
                    raise LaminaError(
                        f"the store has too many names: its index.json would have {len(index)}"
                        f" bytes, and may have {layoutindex.MAX_INDEX}",
                        kind=Kind.EXHAUSTED,
                        hint="remove images with 'lamina image prune -a' or 'lamina rmi'",
                    )
                staged = self._stage(index)
                generation = self._database.write(
                    lambda transaction: _next_generation(transaction, work), durable=True
                )
                layoutindex.publish_index(self._root, staged)
                self._set_state("index_generation", generation)
        except OSError as error:
            raise disk_error(error, "cannot change names") from error

    def _stage(self, content: bytes) -> str:
        return self._reserve.retry(lambda: layoutindex.stage_index(self._root, content))

    def _remember_former(self, transaction: Transaction, name: str, *, keep: str = "") -> None:
        """What a name pointed to stays safe from GC while leases that may have seen it are live."""
        transaction.run(
            "INSERT INTO former_names SELECT name, target, ? FROM names"
            " WHERE name = ? AND target <> ?",
            (self._leases.stamp(), name, keep),
        )

    def _all_point_to(self, names: Sequence[str], text: str) -> bool:
        marks = ",".join("?" * len(names))
        query = f"SELECT count(*) FROM names WHERE target = ? AND name IN ({marks})"  # noqa: S608  # only marks
        found = self._database.read(query, (text, *names))
        return bool(found[0][0] == len(set(names)))

    def _index_is_current(self) -> bool:
        rows = self._database.read(
            "SELECT key, value FROM state WHERE key IN ('generation', 'index_generation')"
        )
        state: dict[str, str] = dict(rows)
        exists = os.path.exists(os.path.join(self._root, layoutindex.INDEX_FILE))
        return exists and state.get("generation") == state.get("index_generation")

    def _set_state(self, key: str, value: str) -> None:
        self._database.write(
            lambda transaction: transaction.run(
                "INSERT OR REPLACE INTO state VALUES (?, ?)", (key, value)
            )
        )

    # Layers.

    def get_layer(self, diff_id: DiffID) -> LayerRecord | None:
        rows = self._database.read(
            "SELECT l.size, b.blob FROM layers l LEFT JOIN layer_blobs b USING (diff_id)"
            " WHERE l.diff_id = ? ORDER BY b.media_type, b.digest",
            (str(diff_id),),
        )
        if not rows:
            return None
        blobs = [blob for _, text in rows if text and (blob := _descriptor(text)) is not None]
        return LayerRecord(diff_id, rows[0][0], tuple(blobs))

    def put_layer(self, diff_id: DiffID, size: int, blob: Descriptor | None = None) -> None:
        def work(transaction: Transaction) -> None:
            insert_layer(transaction.run, diff_id, size, blob)

        self._database.write(work)

    # Cache.

    def get_cache(self, keys: Sequence[Digest]) -> CacheRecord | None:
        rows: dict[str, Row] = {}
        for start in range(0, len(keys), _MAX_VARIABLES):
            some = [str(key) for key in keys[start : start + _MAX_VARIABLES]]
            marks = ",".join("?" * len(some))
            query = f"SELECT * FROM cache WHERE key IN ({marks})"  # noqa: S608  # only marks
            rows.update((str(row[0]), row) for row in self._database.read(query, some))
        for key in keys:
            found = rows.get(str(key))
            record = self._cache_record(key, found) if found is not None else None
            if found is not None and record is not None and self._keep_cache(key, found[5]):
                return record
        return None

    def put_cache(self, records: Sequence[CacheRecord]) -> None:
        used = self._leases.stamp()
        rows = [_cache_row(record, used) for record in records]

        def work(transaction: Transaction) -> None:
            for row in rows:
                transaction.run(
                    "INSERT INTO cache VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT(key) DO UPDATE SET"
                    " result = excluded.result, tree = excluded.tree, name = excluded.name,"
                    " created = excluded.created, last_used = excluded.last_used,"
                    " checksum = excluded.checksum WHERE excluded.created >= cache.created",
                    row,
                )

        self._database.write(work)

    def _cache_record(self, key: Digest, row: Row) -> CacheRecord | None:
        """The record, or None after reporting and dropping a damaged row."""
        record = parse_cache_row(row)
        if record is None or record.key != key:
            self._emit(Notice(f"a cache record of the store is damaged and is ignored ({key})"))
            self._database.write(
                lambda transaction: transaction.run("DELETE FROM cache WHERE key = ?", (str(key),))
            )
            return None
        return record

    def _keep_cache(self, key: Digest, last_used: float) -> bool:
        """Note the use of a record; False if GC took it just now."""
        since = self._leases.since()
        stamp = self._leases.stamp()
        if last_used >= max(since if since is not None else 0.0, stamp - _FRESH):
            return True
        changed = self._database.write(
            lambda transaction: transaction.run(
                "UPDATE cache SET last_used = max(last_used, ?) WHERE key = ?", (stamp, str(key))
            )
        )
        return changed > 0

    # Stat caches.

    def get_stat(self, context: str) -> bytes | None:
        rows = self._database.read(
            "SELECT entries FROM stat WHERE context = ?", (os.fsencode(context),)
        )
        return bytes(rows[0][0]) if rows and isinstance(rows[0][0], bytes) else None

    def put_stat(self, context: str, blob: bytes) -> None:
        row = (os.fsencode(context), blob, self._clock())
        self._database.write(
            lambda transaction: transaction.run("INSERT OR REPLACE INTO stat VALUES (?, ?, ?)", row)
        )


def insert_layer(
    run: Callable[[str, tuple[object, ...]], object],
    diff_id: DiffID,
    size: int,
    blob: Descriptor | None,
) -> None:
    """Record a layer; a size of 0 (unknown) does not replace a known one."""
    run(
        "INSERT INTO layers VALUES (?, ?) ON CONFLICT(diff_id) DO UPDATE SET size = excluded.size"
        " WHERE excluded.size > 0",
        (str(diff_id), size),
    )
    if blob is not None:
        run(
            "INSERT OR REPLACE INTO layer_blobs VALUES (?, ?, ?, ?)",
            (str(diff_id), str(blob.digest), blob.media_type, _descriptor_text(blob)),
        )


def parse_cache_row(row: Row) -> CacheRecord | None:
    """The record in a row (columns in the table's order); None if it is damaged in any way."""
    try:
        key, result, tree, name, created, _, checksum = row
        if checksum != _checksum(key, result, tree, name):
            return None
        diff_ids = tuple(DiffID(Digest.parse(text)) for text in loads(result))
        return CacheRecord(Digest.parse(key), diff_ids, tree, name, float(created))
    except (LaminaError, ValueError, TypeError, AttributeError):
        return None


def result_text(result: Sequence[DiffID]) -> str:
    """A result as the table has it."""
    return dumps([str(diff_id) for diff_id in result])


def _cache_row(record: CacheRecord, used: float) -> Row:
    key = str(record.key)
    result = result_text(record.result)
    checksum = _checksum(key, result, record.tree, record.name)
    return (key, result, record.tree, record.name, record.created, used, checksum)


def _checksum(*texts: str) -> str:
    """Guards a row against flipped bits: sqlite does not check the pages it reads."""
    return sha256_of("\0".join(texts).encode(errors="surrogatepass")).hexdigest()[:16]


def _next_generation(transaction: Transaction, work: Callable[[Transaction], None]) -> str:
    work(transaction)
    row = transaction.row("SELECT value FROM state WHERE key = 'generation'")
    generation = str(int(row[0]) + 1 if row is not None else 1)
    transaction.run("INSERT OR REPLACE INTO state VALUES ('generation', ?)", (generation,))
    return generation


def _named(row: Row) -> NamedImage:
    name, text, updated = row
    target = _descriptor(text)
    if target is None:
        raise LaminaError(
            f"the store's record of {name} is damaged",
            kind=Kind.INTEGRITY,
            hint=f"remove the name with `lamina rmi {name}` and pull or build it again",
        )
    return NamedImage(name, target, updated)


def _doomed(now: Mapping[str, Descriptor], name: str | NamedImage) -> str:
    """The name to delete; empty if it is to be only as it was, and is not."""
    if isinstance(name, str):
        return name
    target = now.get(name.name)
    return name.name if target is not None and target.digest == name.target.digest else ""


def _descriptor(text: object) -> Descriptor | None:
    try:
        return Descriptor.from_json(loads(str(text)))
    except (LaminaError, ValueError):
        return None


def _descriptor_text(descriptor: Descriptor) -> str:
    return dump(descriptor.to_json()).decode()
