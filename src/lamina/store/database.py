# SPDX-License-Identifier: Apache-2.0
"""The sqlite database of a store: connections, transactions, and what to do when it is damaged.

Rules. WAL, autocommit connections, and `BEGIN IMMEDIATE` for everything that writes: a deferred
transaction that reads and then writes fails at once when another process wrote in between. A
connection serves one thread at a time; idle ones are kept. `synchronous` is NORMAL (safe when a
process dies; after a power loss the last transactions may be missing, never half there) and FULL
where `durable` is asked for. Nothing else in this process may open the database file: closing any
descriptor of it would drop sqlite's POSIX locks.
"""

from __future__ import annotations

import os

from lamina.errors import Kind, LaminaError
from lamina.start.lowlevel import allocate_lock
from lamina.store.faults import FULL_HINT, StoreFull

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    from lamina.store.reserve import Reserve

    T = TypeVar("T")

    Row = tuple[Any, ...]
else:
    from lamina.start.sqlitemodule import sqlite3

SqliteError = sqlite3.DatabaseError  # for others, which should not import `sqlite3` for it
FILE = "meta.sqlite"
SCHEMA_VERSION = 2
_BUSY_SECONDS = 60.0  # transactions are short; a process that holds one longer is stopped or dead

# Primary result codes (sqlite.org/rescode.html); the extended code's low byte.
_FULL, _IOERR, _CANTOPEN, _CORRUPT, _NOTADB, _BUSY, _READONLY = 13, 10, 14, 11, 26, 5, 8
_NO_SPACE_FOR_SHM = 4874  # SQLITE_IOERR_SHMSIZE: the wal-index could not be allocated

SCHEMA = """
CREATE TABLE names(
  name TEXT PRIMARY KEY, target TEXT NOT NULL, updated REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE former_names(
  name TEXT NOT NULL, target TEXT NOT NULL, deleted REAL NOT NULL);
CREATE TABLE layers(
  diff_id TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE layer_blobs(
  diff_id TEXT NOT NULL, digest TEXT NOT NULL, media_type TEXT NOT NULL, blob TEXT NOT NULL,
  PRIMARY KEY(diff_id, digest, media_type)) WITHOUT ROWID;
CREATE TABLE cache(
  key TEXT PRIMARY KEY, result TEXT NOT NULL, tree TEXT NOT NULL, name TEXT NOT NULL,
  created REAL NOT NULL, last_used REAL NOT NULL, checksum TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX cache_names ON cache(name, created);
CREATE TABLE stat(
  context TEXT PRIMARY KEY, entries BLOB NOT NULL, used REAL NOT NULL);
CREATE TABLE snapshots(
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, committed INTEGER NOT NULL,
  parent TEXT, created REAL NOT NULL, used REAL NOT NULL, boot TEXT NOT NULL,
  form TEXT NOT NULL DEFAULT 'directory');
CREATE INDEX snapshot_children ON snapshots(parent) WHERE parent IS NOT NULL;
CREATE TABLE documents(
  kind TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL,
  created REAL NOT NULL, PRIMARY KEY(kind, id), UNIQUE(kind, name)) WITHOUT ROWID;
CREATE TABLE state(
  key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class DatabaseDamaged(LaminaError):
    """The database is missing, not a database, or malformed inside."""

    kind = Kind.INTEGRITY


class Transaction:
    """A connection inside a transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def run(self, statement: str, values: Sequence[object] = ()) -> int:
        """Execute a statement; the number of rows changed."""
        return self._connection.execute(statement, values).rowcount

    def rows(self, query: str, values: Sequence[object] = ()) -> list[Row]:
        """All rows of a query."""
        return self._connection.execute(query, values).fetchall()

    def row(self, query: str, values: Sequence[object] = ()) -> Row | None:
        """The first row."""
        found: Row | None = self._connection.execute(query, values).fetchone()
        return found

    def insert(self, statement: str, values: Sequence[object]) -> int:
        """Execute an INSERT; the new row's id."""
        return self._connection.execute(statement, values).lastrowid or 0


class Database:
    """`meta.sqlite` in `root`. `repair` is called once when damage is found, then work is retried."""

    def __init__(self, root: str, *, reserve: Reserve, repair: Callable[[str], None]) -> None:
        self.path = os.path.join(root, FILE)
        self._reserve = reserve
        self._repair = repair
        self._idle: list[tuple[tuple[int, int], sqlite3.Connection]] = []
        self._guard = allocate_lock()
        self._pid = os.getpid()
        self._inherited: list[object] = []

    def read(self, query: str, values: Sequence[object] = ()) -> list[Row]:
        """All rows of one query, outside any transaction."""
        return self._attempt(lambda: self._read(query, values))

    def write(self, work: Callable[[Transaction], T], *, durable: bool = False) -> T:
        """`work` in a `BEGIN IMMEDIATE` transaction: all or nothing. It may run twice (damage or a
        full disk found at the first attempt), so it must not change anything else.

        Raises:
            StoreFull: no space, even with the reserve.
            DatabaseDamaged: and it could not be repaired.
            LaminaError: kind UNAVAILABLE: another process held the database for a minute.
        """
        return self._attempt(lambda: self._write(work, durable=durable))

    def rebuild(self, reason: str) -> None:
        """Make the database again from what can be read, if it is damaged."""
        self.close()
        self._repair(reason)

    def close(self) -> None:
        """Close idle connections. Idempotent."""
        with self._guard:
            idle, self._idle = self._idle, []
        if self._pid == os.getpid():
            for _, connection in idle:
                connection.close()
        else:
            self._inherited.append(idle)

    def _attempt(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except sqlite3.DatabaseError as error:
            fault = database_fault(error, self.path)
            if isinstance(fault, StoreFull):
                if not self._reserve.release():
                    raise fault from error
            elif isinstance(fault, DatabaseDamaged):
                self.close()
                self._repair(str(fault))
            else:
                raise fault from error
        try:
            return work()
        except sqlite3.DatabaseError as error:
            raise database_fault(error, self.path) from error

    def _read(self, query: str, values: Sequence[object]) -> list[Row]:
        identity, connection = self._borrow()
        try:
            rows = connection.execute(query, values).fetchall()
        except BaseException:
            connection.close()
            raise
        self._give_back(identity, connection)
        return rows

    def _write(self, work: Callable[[Transaction], T], *, durable: bool) -> T:
        identity, connection = self._borrow()
        try:
            if durable:
                connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN IMMEDIATE")
            value = work(Transaction(connection))
            connection.execute("COMMIT")
            if durable:
                connection.execute("PRAGMA synchronous=NORMAL")
        except BaseException:
            # kept if it can be: on a full disk there may be no room to open another
            if _is_usable(connection):
                self._give_back(identity, connection)
            raise
        self._give_back(identity, connection)
        return value

    def _borrow(self) -> tuple[tuple[int, int], sqlite3.Connection]:
        """A connection to the file that is at the path now (repair replaces it)."""
        if self._pid != os.getpid():  # connections must not be used, nor closed, after a fork
            self._inherited.append(self._idle)
            self._idle, self._pid = [], os.getpid()
            self._guard = allocate_lock()
        identity = _identity(self.path)
        while True:
            with self._guard:
                known = self._idle.pop() if self._idle else None
            if known is None:
                return identity, connect(self.path)
            if known[0] == identity:
                return known
            known[1].close()

    def _give_back(self, identity: tuple[int, int], connection: sqlite3.Connection) -> None:
        with self._guard:
            self._idle.append((identity, connection))


def _is_usable(connection: sqlite3.Connection) -> bool:
    """Whether a connection whose transaction failed was rolled back; it is closed otherwise."""
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute("PRAGMA synchronous=NORMAL")
    except sqlite3.Error:
        connection.close()
        return False
    return True


def connect(path: str) -> sqlite3.Connection:
    """A connection to an existing database."""
    uri = "file:" + path.replace("%", "%25").replace("?", "%3f").replace("#", "%23") + "?mode=rw"
    connection = sqlite3.connect(
        uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        connection.text_factory = _decode
        connection.execute("PRAGMA synchronous=NORMAL")  # the first look into the file
    except BaseException:
        connection.close()
        raise
    return connection


def _decode(text: bytes) -> str:
    """Flipped bits may not be UTF-8: what reads the row finds out by its checksum or its syntax."""
    return text.decode(errors="replace")


def create(path: str, *, fill: Callable[[sqlite3.Connection], None] | None = None) -> None:
    """A new database with the current schema, filled by `fill`, put at `path` complete.

    Replaces what is there. The caller holds a lock that keeps others from doing the same.
    """
    temporary = path + ".new"
    for suffix in ("", "-wal", "-shm"):
        if os.path.lexists(temporary + suffix):
            os.unlink(temporary + suffix)
    connection = sqlite3.connect(temporary, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(
            f"BEGIN IMMEDIATE;{SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;"
        )
        if fill is not None:
            connection.execute("BEGIN IMMEDIATE")
            fill(connection)
            connection.execute("COMMIT")
    finally:
        connection.close()  # the last close folds the log into the file
    os.rename(temporary, path)


def database_fault(error: sqlite3.DatabaseError, path: str) -> LaminaError:
    """The LaminaError of a sqlite error; errors of lamina's own SQL are re-raised as they are."""
    extended = getattr(error, "sqlite_errorcode", 0) or 0
    code = extended & 0xFF
    if code == _FULL or extended == _NO_SPACE_FOR_SHM:
        return StoreFull(f"cannot write {path}: the disk is full", hint=FULL_HINT)
    if code in {_CORRUPT, _NOTADB}:
        return DatabaseDamaged(f"{path} is damaged: {error}")
    if code == _CANTOPEN:
        if not os.path.exists(path):
            return DatabaseDamaged(f"{path} is missing")
        if os.statvfs(os.path.dirname(path)).f_bavail == 0:  # no room for its log
            return StoreFull(f"cannot open {path}: the disk is full", hint=FULL_HINT)
        denied = not os.access(path, os.R_OK | os.W_OK)
        kind = Kind.DENIED if denied else Kind.SYSTEM
        return LaminaError(f"cannot open {path}: {error}", kind=kind)
    if code == _BUSY:
        return LaminaError(
            f"{path} has been locked by another process for {_BUSY_SECONDS:.0f} seconds",
            kind=Kind.UNAVAILABLE,
        )
    if code == _READONLY:
        return LaminaError(f"cannot write {path}: {error}", kind=Kind.DENIED)
    if code == _IOERR:
        return LaminaError(f"cannot access {path}: {error}", kind=Kind.SYSTEM)
    raise error


def _identity(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return (0, 0)
    return (found.st_dev, found.st_ino)
