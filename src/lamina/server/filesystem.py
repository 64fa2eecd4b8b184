# SPDX-License-Identifier: Apache-2.0
"""The storage driver on a directory: blobs as files, everything else in one sqlite file.

    ROOT/lock                       held by the process that serves it
    ROOT/registry.sqlite            repositories, links, manifests, tags, referrers
    ROOT/blobs/<algorithm>/<hh>/<hex>
    ROOT/uploads/<id>/{session.json,data}

A blob's file is flushed and renamed into place before its row is committed; a file without a row
(a crash between the two) is removed at the next start. Removal goes the other way round: the row
first, then the file. Both under the database's guard, so a blob that is pushed again while it is
being removed keeps its file.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress

from lamina.errors import Kind, LaminaError
from lamina.server.collect import FilesystemUpkeep, Leases
from lamina.server.database import Database, repository_id
from lamina.server.manifeststore import (
    SqliteCachedTags,
    SqliteManifests,
    held,
    within_quota,
)
from lamina.server.overview import SqliteOverview
from lamina.server.places import Places
from lamina.server.ports import BlobFile
from lamina.server.quotas import Quotas, check_bytes
from lamina.server.sessions import FilesystemUploads
from lamina.server.sqliteledger import SqliteLedger

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from lamina.spec.digest import Digest

DEFAULT_GRACE = 3600.0  # seconds; longer than the push of one image takes (zot's gcDelay)


class FilesystemStorage:
    """The storage in `root`, for one process at a time (ADR 91).

    `grace` is for how many seconds an unused blob is kept after it was pushed or asked for,
    `window` for how many a removed manifest can be had back.

    Raises:
        LaminaError: kind CONFLICT if another process serves it; as `Database`.
    """

    remote = False

    def __init__(
        self,
        root: str,
        *,
        clock: Callable[[], float],
        grace: float = DEFAULT_GRACE,
        upload_expiry: float = 86400.0,
        max_uploads: int = 10_000,
        window: float = 0.0,
        quotas: Quotas | None = None,
    ) -> None:
        os.makedirs(root, mode=0o700, exist_ok=True)
        self._lock = _take(os.path.join(root, "lock"))
        places = Places(root)
        try:
            self.database = Database(os.path.join(root, "registry.sqlite"))
        except BaseException:
            os.close(self._lock)
            raise
        leases = Leases(clock=clock, grace=grace)
        quotas = quotas or Quotas()
        self.blobs = FilesystemBlobs(
            self.database, places, leases=leases, clock=clock, quotas=quotas
        )
        self.uploads = FilesystemUploads(places.uploads, blobs=self.blobs, limit=max_uploads)
        self.manifests = SqliteManifests(
            self.database, clock=clock, keep_history=window > 0, quotas=quotas
        )
        self.cached_tags = SqliteCachedTags(
            self.database, clock=clock, keep_history=window > 0, quotas=quotas
        )
        self.ledger = SqliteLedger(
            self.database, clock=clock, window=window, grace=grace, quotas=quotas
        )
        self.overview = SqliteOverview(self.database)
        self.upkeep = FilesystemUpkeep(
            self.database,
            places,
            leases=leases,
            clock=clock,
            uploads=self.uploads,
            upload_expiry=upload_expiry,
            window=window,
        )
        self.upkeep.remove_orphans()

    def close(self) -> None:
        if self._lock >= 0:
            with suppress(LaminaError):  # a full disk: only times of pulls are lost
                self.ledger.flush()
        self.database.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class FilesystemBlobs:
    """Blobs as files, who holds them as rows."""

    def __init__(
        self,
        database: Database,
        places: Places,
        *,
        leases: Leases,
        clock: Callable[[], float],
        quotas: Quotas,
    ) -> None:
        self._database = database
        self._places = places
        self._leases = leases
        self._clock = clock
        self._quotas = quotas

    def find(self, repository: str, digest: Digest, *, keep: bool = True) -> BlobFile | None:
        name = str(digest)
        if not self._leases.renew(repository, name):
            return None
        row = self._database.reader.execute(
            "SELECT b.size FROM repositories r JOIN links l ON l.repository = r.id AND l.digest = ?"
            " JOIN blobs b ON b.digest = l.digest WHERE r.name = ?",
            (name, repository),
        ).fetchone()
        if row is None:
            self._leases.drop(repository, name)
            return None
        return BlobFile(self._places.blob(name), row[0])

    def mount(self, digest: Digest, *, source: str, target: str) -> bool:
        name = str(digest)
        with self._database.writing() as connection:
            found = connection.execute(
                "SELECT 1 FROM repositories r JOIN links l ON l.repository = r.id"
                " WHERE r.name = ? AND l.digest = ?",
                (source, name),
            ).fetchone()
            if found is None:
                return False
            number = repository_id(connection, target, make=True)
            with within_quota(connection, number, target, self._quotas):
                self._link(connection, number, name)
        return True

    def holders(self, digest: Digest) -> Sequence[str]:
        rows = self._database.reader.execute(
            "SELECT r.name FROM links l JOIN repositories r ON r.id = l.repository"
            " WHERE l.digest = ? ORDER BY r.name LIMIT 100",
            (str(digest),),
        )
        return [name for (name,) in rows]

    def remove(self, repository: str, digest: Digest) -> bool:
        with self._database.writing() as connection:
            removed = connection.execute(
                "DELETE FROM links WHERE digest = ?"
                " AND repository = (SELECT id FROM repositories WHERE name = ?)",
                (str(digest), repository),
            ).rowcount
        return removed > 0

    def adopt(self, path: str, *, repository: str, digest: Digest, size: int) -> None:
        """Make the flushed file at `path`, whose digest was checked, a blob of the repository.

        The file stays where it is, as another name of the same bytes, and the caller removes it: after
        a crash before the row is there the upload goes on with all that it had.
        """
        name = str(digest)
        target = self._places.blob(name)
        with self._database.writing() as connection:
            number = repository_id(connection, repository, make=True)
            self._check_quota(connection, number, repository, digest=name, size=size)
            known = connection.execute("SELECT 1 FROM blobs WHERE digest = ?", (name,)).fetchone()
            if known is None or _size(target) != size:
                _link(path, target)
                sync_directory(os.path.dirname(target))
            connection.execute(
                "INSERT OR REPLACE INTO blobs (digest, size) VALUES (?, ?)", (name, size)
            )
            self._link(connection, number, name)

    def _check_quota(
        self,
        connection: sqlite3.Connection,
        number: int,
        repository: str,
        *,
        digest: str,
        size: int,
    ) -> None:
        """As `within_quota`, but before the file is moved."""
        quota = self._quotas.of(repository)
        if quota is None:
            return
        linked = connection.execute(
            "SELECT 1 FROM links WHERE repository = ? AND digest = ?", (number, digest)
        ).fetchone()
        if linked is None:
            check_bytes(quota, held=held(connection, number)[0], more=size)

    def _link(self, connection: sqlite3.Connection, number: int, digest: str) -> None:
        connection.execute(
            "INSERT INTO links (repository, digest, linked) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET linked = excluded.linked",
            (number, digest, self._clock()),
        )


def _link(path: str, target: str) -> None:
    """Give the file a second name, in place of whatever has it."""
    with suppress(FileNotFoundError):
        os.unlink(target)  # left by a crash, or damaged: no row says that it is whole
    try:
        os.link(path, target)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK}:
            raise
        os.rename(path, target)  # a file system without second names


def _size(path: str) -> int:
    """The file's size, -1 if it is not there."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return -1


def sync_directory(path: str) -> None:
    """Flush a directory's entries."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take(path: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise LaminaError(
            f"another process uses the registry in {os.path.dirname(path)}",
            kind=Kind.CONFLICT,
            hint="one process serves a directory; stop the other one or choose another --root",
        ) from error
    except BaseException:
        with suppress(OSError):
            os.close(descriptor)
        raise
    return descriptor
