# SPDX-License-Identifier: Apache-2.0
"""Garbage collection and scrubbing of the filesystem driver, while it is in use.

What may go: a blob's link to a repository in which no manifest needs it, older than the grace
period and without a lease; a manifest without a tag, if that is asked for; a removed manifest
after the window (`history`); a blob that no repository holds. Everything is removed in short transactions of `_BATCH` rows, and each condition
is checked again inside the transaction, as are a manifest's blobs when it is pushed: one of the two
sees the other.

A *lease* is a promise made by an answer. A client that asks with HEAD whether a blob exists and
hears yes will not push it, so the blob must live until its manifest comes. `Leases.renew` and
`Leases.doom` are one half each of Dekker's algorithm: the request writes its lease and then looks
whether the link is doomed; the collector dooms the link and then looks for a lease. At least one
sees the other; if both do, the request says no and the client pushes a blob in vain. Leases are in
memory, so after a start nothing is collected for one grace period.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress

from lamina.server.history import UNNEEDED, Act, expire, remove_manifest
from lamina.server.ports import Collected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from lamina.server.database import Database
    from lamina.server.places import Places
    from lamina.server.sessions import FilesystemUploads

_BATCH = 100  # rows a transaction: a few milliseconds for which a push may wait


class Leases:
    """Who was told that a blob exists, and until when that holds."""

    def __init__(self, *, clock: Callable[[], float], grace: float) -> None:
        self.grace = grace
        self._clock = clock
        self._started = clock()
        self._renewed: dict[tuple[str, str], float] = {}
        self._doomed: set[tuple[str, str]] = set()

    def renew(self, repository: str, digest: str) -> bool:
        """Lease the link; False if it is being removed now."""
        key = (repository, digest)
        self._renewed[key] = self._clock()
        return key not in self._doomed

    def drop(self, repository: str, digest: str) -> None:
        """Forget a lease on what is not there: questions about random digests cost no memory."""
        self._renewed.pop((repository, digest), None)

    def epoch(self) -> float:
        """Links made before this time may go. Nothing may within a grace period of the start."""
        now = self._clock()
        return now - self.grace if now - self._started >= self.grace else float("-inf")

    def doom(self, keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those of `keys` that have no lease; until `spare`, new leases on them are refused."""
        self._doomed.update(keys)
        epoch = self.epoch()
        return [key for key in keys if self._renewed.get(key, float("-inf")) < epoch]

    def spare(self, keys: Sequence[tuple[str, str]]) -> None:
        """The removal of `keys` has ended."""
        self._doomed.difference_update(keys)

    def forget_expired(self) -> None:
        """Drop leases that have run out."""
        epoch = self.epoch()
        for key, renewed in list(self._renewed.items()):
            if renewed < epoch:
                self._renewed.pop(key, None)


class FilesystemUpkeep:
    """The `Upkeep` port of the filesystem driver."""

    def __init__(
        self,
        database: Database,
        places: Places,
        *,
        leases: Leases,
        clock: Callable[[], float],
        uploads: FilesystemUploads,
        upload_expiry: float,
        window: float = 0.0,
    ) -> None:
        self._database = database
        self._places = places
        self._leases = leases
        self._clock = clock
        self._uploads = uploads
        self._upload_expiry = upload_expiry
        self._window = window

    def collect(self, *, untagged_after: float | None = None, dry_run: bool = False) -> Collected:
        uploads = list(self._uploads.expired(self._clock() - self._upload_expiry))
        if not dry_run:
            for id in uploads:
                self._uploads.discard(id)
        manifests = 0
        if untagged_after is not None:
            manifests = self._collect_untagged(untagged_after, dry_run=dry_run)
        if not dry_run:
            expire(self._database, self._clock() - self._window)
        links = self._collect_links(dry_run=dry_run)
        blobs, size = self._collect_blobs(dry_run=dry_run)
        self._leases.forget_expired()
        return Collected(len(uploads), manifests, links, blobs, size)

    def scrub(self, *, cancelled: Callable[[], bool] = lambda: False) -> Sequence[str]:
        damaged: list[str] = []
        reader = self._database.reader
        for (digest,) in reader.execute("SELECT digest FROM blobs ORDER BY digest").fetchall():
            if cancelled():
                return damaged
            found = self._hash(digest)
            if found != digest.partition(":")[2] and self._known(digest):
                damaged.append(digest)
        for (digest,) in reader.execute("SELECT digest FROM documents ORDER BY digest").fetchall():
            row = reader.execute("SELECT raw FROM documents WHERE digest = ?", (digest,)).fetchone()
            algorithm, _, hex_digits = digest.partition(":")
            if row is not None and hashlib.new(algorithm, row[0]).hexdigest() != hex_digits:
                damaged.append(digest)
        return damaged

    def remove_orphans(self) -> int:
        """Remove files without a row, left by a crash; only while nothing else runs."""
        removed = 0
        reader = self._database.reader
        for algorithm in os.listdir(self._places.blobs):
            for shelf in os.scandir(os.path.join(self._places.blobs, algorithm)):
                for entry in os.scandir(shelf.path):
                    row = reader.execute(
                        "SELECT 1 FROM blobs WHERE digest = ?", (f"{algorithm}:{entry.name}",)
                    ).fetchone()
                    if row is None:
                        os.unlink(entry.path)
                        removed += 1
        return removed

    def _collect_untagged(self, after: float, *, dry_run: bool) -> int:
        condition = f" m.pushed < ? AND {UNNEEDED}"
        before = self._clock() - after
        candidates = self._database.reader.execute(
            f"SELECT m.repository, m.digest FROM manifests m WHERE {condition}",  # noqa: S608  # constant
            (before,),
        ).fetchall()
        if dry_run:
            return len(candidates)
        removed = 0
        act = Act(self._clock(), "", "untagged-after", self._window > 0)
        for batch in _batches(candidates):
            with self._database.writing() as connection:
                for number, digest in batch:
                    still = connection.execute(
                        "SELECT 1 FROM manifests m WHERE m.repository = ? AND m.digest = ? AND"  # noqa: S608  # constant
                        + condition,
                        (number, digest, before),
                    ).fetchone()
                    if still is not None:
                        removed += remove_manifest(connection, number, digest, act=act)
        return removed

    def _collect_links(self, *, dry_run: bool) -> int:
        condition = (
            "l.linked < ? AND NOT EXISTS (SELECT 1 FROM children c"
            " WHERE c.repository = l.repository AND c.child = l.digest)"
        )
        epoch = self._leases.epoch()
        candidates = self._database.reader.execute(
            "SELECT l.repository, r.name, l.digest FROM links l"  # noqa: S608  # constant
            f" JOIN repositories r ON r.id = l.repository WHERE {condition}",
            (epoch,),
        ).fetchall()
        if dry_run:
            return len(candidates)
        removed = 0
        for batch in _batches(candidates):
            keys = [(name, digest) for _, name, digest in batch]
            free = set(self._leases.doom(keys))
            try:
                with self._database.writing() as connection:
                    for number, name, digest in batch:
                        if (name, digest) in free:
                            removed += connection.execute(
                                "DELETE FROM links AS l WHERE repository = ? AND digest = ? AND "  # noqa: S608  # constant
                                + condition,
                                (number, digest, epoch),
                            ).rowcount
            finally:
                self._leases.spare(keys)
        return removed

    def _collect_blobs(self, *, dry_run: bool) -> tuple[int, int]:
        unheld = "NOT EXISTS (SELECT 1 FROM links l WHERE l.digest = blobs.digest)"
        candidates = self._database.reader.execute(
            f"SELECT digest, size FROM blobs WHERE {unheld}"  # noqa: S608  # constant
        ).fetchall()
        if dry_run:
            return len(candidates), sum(size for _, size in candidates)
        blobs = freed = 0
        for batch in _batches(candidates):
            with self._database.alone():
                gone = []
                with self._database.writing() as connection:
                    for digest, size in batch:
                        if connection.execute(
                            f"DELETE FROM blobs WHERE digest = ? AND {unheld}",  # noqa: S608  # constant
                            (digest,),
                        ).rowcount:
                            gone.append((digest, size))
                for digest, size in gone:
                    with suppress(FileNotFoundError):
                        os.unlink(self._places.blob(digest))
                    blobs += 1
                    freed += size
        return blobs, freed

    def _hash(self, digest: str) -> str:
        algorithm = digest.partition(":")[0]
        try:
            with open(self._places.blob(digest), "rb") as file:
                return hashlib.file_digest(file, algorithm).hexdigest()
        except OSError:  # gone, or a sector that cannot be read
            return ""

    def _known(self, digest: str) -> bool:
        """Whether the blob is still there: it may have been collected meanwhile."""
        row = self._database.reader.execute(
            "SELECT 1 FROM blobs WHERE digest = ?", (digest,)
        ).fetchone()
        return row is not None


def _batches(rows: list[tuple[Any, ...]]) -> list[list[tuple[Any, ...]]]:
    return [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
