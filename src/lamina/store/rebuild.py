# SPDX-License-Identifier: Apache-2.0
"""Making the database again when it is damaged or missing.

The damaged file is kept beside the new one. Whatever rows can still be read are carried over; names
also come from `index.json`, and every name is checked: a manifest that is missing or fails its
digest is not named again. Layers are learnt again from the named images' manifests and configs.
"""

from __future__ import annotations

import json
import os
import sqlite3

from lamina.errors import LaminaError
from lamina.spec import mediatype
from lamina.spec.config import ImageConfig
from lamina.spec.descriptor import Descriptor
from lamina.spec.document import MAX_DOCUMENT, dump
from lamina.spec.manifest import Index, Manifest
from lamina.store import database, layoutindex
from lamina.store.metadata import insert_layer, parse_cache_row
from lamina.system.locks import FileLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from lamina.store.content import Content
    from lamina.store.database import Row

# Tables that are carried over as they are; `names` and `cache` are checked row by row.
_SNAPSHOT_COLUMNS_OF_1 = 7  # a database that was damaged before it was migrated
_COPIED = ("former_names", "layers", "layer_blobs", "stat", "snapshots", "documents", "state")
_MAX_NESTING = 4  # indexes in indexes


class Rebuild:
    """One rebuilding. `run` says in words what was done; empty if nothing had to be."""

    def __init__(self, root: str, content: Content, *, clock: Callable[[], float]) -> None:
        self._root = root
        self._path = os.path.join(root, database.FILE)
        self._content = content
        self._clock = clock
        self._names = 0
        self._lost: list[str] = []

    def run(self) -> str:
        """Rebuild unless another process just did."""
        with FileLock(os.path.join(self._root, "locks", "rebuild")):
            if _is_sound(self._path):
                return ""
            kept = self._move_aside()
            database.create(self._path, fill=lambda connection: self._fill(connection, kept))
        lost = f"; lost names: {', '.join(self._lost)}" if self._lost else ""
        damaged = f"; the damaged one is {kept}" if kept else ""
        return f"the store's database was rebuilt with {self._names} names{lost}{damaged}"

    def _move_aside(self) -> str:
        if not os.path.exists(self._path):
            return ""
        kept = self._path + ".damaged"
        for suffix in ("", "-wal", "-shm"):
            try:
                os.replace(self._path + suffix, kept + suffix)
            except FileNotFoundError:
                if os.path.exists(kept + suffix):
                    os.unlink(kept + suffix)
        return kept

    def _fill(self, connection: sqlite3.Connection, kept: str) -> None:
        names = dict(layoutindex.read_index(self._root))
        if kept:
            with _Salvage(kept) as salvage:
                self._carry_over(connection, salvage)
                names.update(salvage.names())
        for name, target in sorted(names.items()):
            self._set_name(connection, name, target)
        highest = max(_directories(self._root), default=0)
        connection.execute("DELETE FROM sqlite_sequence WHERE name = 'snapshots'")
        # ids of directories whose rows are lost must not be given out again
        connection.execute("INSERT INTO sqlite_sequence VALUES ('snapshots', ?)", (highest,))
        # index.json does not follow this database yet
        connection.execute("INSERT OR IGNORE INTO state VALUES ('generation', '1')")
        connection.execute("DELETE FROM state WHERE key = 'index_generation'")

    def _carry_over(self, connection: sqlite3.Connection, salvage: _Salvage) -> None:
        present = set(_directories(self._root))
        for table in _COPIED:
            for row in salvage.rows(table):
                if table == "snapshots" and row[0] not in present:
                    continue
                _insert(connection, table, row)
        for row in salvage.rows("cache"):
            if parse_cache_row(row) is not None:
                _insert(connection, "cache", row)

    def _set_name(self, connection: sqlite3.Connection, name: str, target: Descriptor) -> None:
        try:
            self._learn_layers(connection, target, depth=0)
        except LaminaError:
            self._lost.append(name)
            return
        text = dump(target.to_json()).decode()
        connection.execute("INSERT INTO names VALUES (?, ?, ?)", (name, text, self._clock()))
        self._names += 1

    def _learn_layers(
        self, connection: sqlite3.Connection, target: Descriptor, *, depth: int
    ) -> None:
        raw = self._content.read(target.digest, limit=MAX_DOCUMENT)
        if target.media_type in mediatype.INDEXES:
            for child in Index.parse(raw, media_type=target.media_type).manifests:
                if depth < _MAX_NESTING and self._content.exists(child.digest):
                    self._learn_layers(connection, child, depth=depth + 1)
            return
        manifest = Manifest.parse(raw, media_type=target.media_type)
        if not self._content.exists(manifest.config.digest):
            return
        config = ImageConfig.parse(self._content.read(manifest.config.digest, limit=MAX_DOCUMENT))
        if len(config.diff_ids) != len(manifest.layers):
            return
        for diff_id, layer in zip(config.diff_ids, manifest.layers, strict=True):
            blob = layer if self._content.exists(layer.digest) else None
            insert_layer(connection.execute, diff_id, 0, blob)


class _Salvage:
    """What can still be read of a damaged database."""

    def __init__(self, path: str) -> None:
        self._connection: sqlite3.Connection | None = None
        try:
            self._connection = database.connect(path)
        except sqlite3.DatabaseError:
            return

    def rows(self, table: str) -> Iterator[Row]:
        """The rows of `table` up to the first that cannot be read."""
        if self._connection is None:
            return
        try:
            yield from self._connection.execute(f"SELECT * FROM {table}")  # noqa: S608  # a constant
        except sqlite3.DatabaseError:
            return

    def names(self) -> dict[str, Descriptor]:
        found: dict[str, Descriptor] = {}
        for name, target, _ in self.rows("names"):
            try:
                found[name] = Descriptor.from_json(json.loads(target))
            except (LaminaError, ValueError):
                continue
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._connection is not None:
            self._connection.close()


def _insert(connection: sqlite3.Connection, table: str, row: Row) -> None:
    if table == "snapshots" and len(row) == _SNAPSHOT_COLUMNS_OF_1:
        row = (*row, "directory")
    marks = ",".join("?" * len(row))
    try:
        statement = f"INSERT OR IGNORE INTO {table} VALUES ({marks})"  # noqa: S608  # a constant
        connection.execute(statement, row)
    except sqlite3.Error:  # a damaged row: wrong type or a missing column
        return


def _is_sound(path: str) -> bool:
    try:
        connection = database.connect(path)
    except sqlite3.DatabaseError:
        return False
    try:
        return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.DatabaseError:
        return False
    finally:
        connection.close()


def _directories(root: str) -> list[int]:
    names = os.listdir(os.path.join(root, "snapshots"))
    return [int(name) for name in names if name.isdecimal()]
