# SPDX-License-Identifier: Apache-2.0
"""The tables of the filesystem driver: who holds which blob, manifests, tags and their past.

One sqlite file in WAL mode. Reads use a connection of the calling thread and see the last commit;
writes go through `writing()`, one at a time, each flushed before it returns (synchronous=FULL).
Manifests' bytes are kept here and not as files, so that a push of one is one transaction.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SCHEMA = """
CREATE TABLE repositories (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE blobs (digest TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE links (
  repository INTEGER NOT NULL, digest TEXT NOT NULL, linked REAL NOT NULL,
  PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE INDEX links_by_digest ON links (digest);
CREATE TABLE documents (digest TEXT PRIMARY KEY, raw BLOB NOT NULL);
CREATE TABLE manifests (
  repository INTEGER NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL,
  subject TEXT NOT NULL, artifact_type TEXT NOT NULL, annotations TEXT NOT NULL,
  size INTEGER NOT NULL, depth INTEGER NOT NULL, pushed REAL NOT NULL,
  PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE INDEX manifests_by_digest ON manifests (digest);
CREATE INDEX manifests_by_subject ON manifests (repository, subject, digest) WHERE subject != '';
CREATE TABLE children (
  repository INTEGER NOT NULL, parent TEXT NOT NULL, child TEXT NOT NULL,
  PRIMARY KEY (repository, parent, child)) WITHOUT ROWID;
CREATE INDEX children_by_child ON children (repository, child);
CREATE TABLE tags (
  repository INTEGER NOT NULL, folded TEXT NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL,
  updated REAL NOT NULL, PRIMARY KEY (repository, folded, tag)) WITHOUT ROWID;
CREATE INDEX tags_by_digest ON tags (repository, digest);
"""
# What each format adds to the one before it; a new registry goes through all of them too.
_STEPS = {
    # 2: how many bytes a repository holds, moves of tags, removed manifests, pulls, cached tags
    2: """
ALTER TABLE repositories ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
UPDATE repositories SET bytes =
  (SELECT coalesce(sum(b.size), 0) FROM links l JOIN blobs b ON b.digest = l.digest
   WHERE l.repository = repositories.id)
  + (SELECT coalesce(sum(m.size), 0) FROM manifests m WHERE m.repository = repositories.id);
CREATE TABLE moves (
  id INTEGER PRIMARY KEY, repository INTEGER NOT NULL, tag TEXT NOT NULL, digest TEXT NOT NULL,
  previous TEXT NOT NULL, moved REAL NOT NULL, user TEXT NOT NULL, why TEXT NOT NULL);
CREATE INDEX moves_by_tag ON moves (repository, tag, id);
CREATE INDEX moves_by_previous ON moves (repository, previous, moved);
CREATE INDEX moves_by_time ON moves (moved);
CREATE TABLE graves (
  repository INTEGER NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL,
  subject TEXT NOT NULL, artifact_type TEXT NOT NULL, annotations TEXT NOT NULL,
  size INTEGER NOT NULL, depth INTEGER NOT NULL, pushed REAL NOT NULL,
  removed REAL NOT NULL, user TEXT NOT NULL, why TEXT NOT NULL,
  PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE INDEX graves_by_digest ON graves (digest);
CREATE INDEX graves_by_time ON graves (removed);
CREATE TABLE pulls (
  repository INTEGER NOT NULL, digest TEXT NOT NULL, pulled REAL NOT NULL,
  PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE TABLE cached (
  repository INTEGER NOT NULL, tag TEXT NOT NULL, checked REAL NOT NULL,
  PRIMARY KEY (repository, tag)) WITHOUT ROWID;
CREATE TRIGGER link_made AFTER INSERT ON links BEGIN
  UPDATE repositories
  SET bytes = bytes + coalesce((SELECT size FROM blobs WHERE digest = NEW.digest), 0)
  WHERE id = NEW.repository; END;
CREATE TRIGGER link_gone AFTER DELETE ON links BEGIN
  UPDATE repositories
  SET bytes = bytes - coalesce((SELECT size FROM blobs WHERE digest = OLD.digest), 0)
  WHERE id = OLD.repository; END;
CREATE TRIGGER manifest_made AFTER INSERT ON manifests BEGIN
  UPDATE repositories SET bytes = bytes + NEW.size WHERE id = NEW.repository; END;
CREATE TRIGGER manifest_gone AFTER DELETE ON manifests BEGIN
  UPDATE repositories SET bytes = bytes - OLD.size WHERE id = OLD.repository; END;
CREATE TRIGGER grave_made AFTER INSERT ON graves BEGIN
  UPDATE repositories SET bytes = bytes + NEW.size WHERE id = NEW.repository; END;
CREATE TRIGGER grave_gone AFTER DELETE ON graves BEGIN
  UPDATE repositories SET bytes = bytes - OLD.size WHERE id = OLD.repository; END;
""",
}
VERSION = max(_STEPS)


class Database:
    """The tables in the file at `path`, made if it is not there, brought to the current format.

    `beside` is for a second process beside the one that serves the registry: it neither makes nor
    changes the tables, only rows, in transactions that sqlite keeps apart from the other's.

    Raises:
        LaminaError: kind INTEGRITY if it is damaged, UNSUPPORTED if it has another format.
    """

    def __init__(self, path: str, *, beside: bool = False) -> None:
        self._path = path
        self._beside = beside
        self._local = threading.local()
        self._guard = threading.RLock()
        self._opened: list[sqlite3.Connection] = []
        try:
            self._writer = self._connect()
            self._prepare()
        except sqlite3.DatabaseError as error:
            self.close()
            raise _unusable(path, error) from error
        except BaseException:
            self.close()
            raise

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        with self._guard:
            self._opened.append(connection)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA mmap_size=268435456")
        return connection

    def _prepare(self) -> None:
        (version,) = self._writer.execute("PRAGMA user_version").fetchone()
        if version == VERSION:
            return
        if version > VERSION or self._beside:
            raise LaminaError(
                f"{self._path}: format {version} of a registry is not known to this lamina"
                if version > VERSION
                else f"{self._path} has the format of an older lamina ({version})",
                kind=Kind.UNSUPPORTED,
                hint=f"this version reads format {VERSION}"
                if version > VERSION
                else "'lamina registry serve' brings it to the current one at its start",
            )
        steps = [text for number, text in sorted(_STEPS.items()) if number > version]
        self._writer.executescript(
            f"BEGIN IMMEDIATE; {'' if version else _SCHEMA} {' '.join(steps)}"
            f" PRAGMA user_version={VERSION}; COMMIT;"
        )

    @property
    def reader(self) -> sqlite3.Connection:
        """The calling thread's connection for reading."""
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._local.connection = self._connect()
        return found

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A block that is one transaction, committed and flushed at its end, undone on an error.

        No other `writing` block of this process runs meanwhile.

        Raises:
            LaminaError: kind EXHAUSTED if the disk did not take it; nothing of it is stored.
        """
        with self._guard:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException as error:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):  # the disk is full, or fails
                    raise LaminaError(f"{self._path}: {error}", kind=Kind.EXHAUSTED) from error
                raise

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A block beside which no `writing` block of another thread runs; may contain such."""
        with self._guard:
            yield

    def close(self) -> None:
        """Close every connection. Idempotent."""
        with self._guard:
            while self._opened:
                self._opened.pop().close()


def _unusable(path: str, error: sqlite3.DatabaseError) -> LaminaError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code of an extended one
    if code not in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return LaminaError(f"cannot open {path}: {error}", kind=Kind.SYSTEM)
    return LaminaError(
        f"{path} is damaged: {error}",
        kind=Kind.INTEGRITY,
        hint="put a backup of it back; without one, move it away and push the images again",
    )


def repository_id(connection: sqlite3.Connection, name: str, *, make: bool = False) -> int:
    """The number of the repository; 0 if it is not known and `make` is False."""
    row = connection.execute("SELECT id FROM repositories WHERE name = ?", (name,)).fetchone()
    if row is not None:
        return int(row[0])
    if not make:
        return 0
    made = connection.execute("INSERT INTO repositories (name) VALUES (?)", (name,)).lastrowid
    assert made is not None
    return made
