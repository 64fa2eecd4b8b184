# SPDX-License-Identifier: Apache-2.0
"""Manifests, tags and referrers as rows (the `Manifests` and `CachedTags` ports)."""

from __future__ import annotations

import json
from contextlib import contextmanager

from lamina.server.database import Database, repository_id
from lamina.server.history import Act, drop_tag, remove_manifest, rescue, set_tag
from lamina.server.ledger import CachedTag
from lamina.server.ports import NewManifest, Referrer, StoredManifest
from lamina.server.quotas import Quotas, check_bytes, check_tags
from lamina.server.wire import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence

    from lamina.spec.digest import Digest

MAX_NESTING = 8  # of indexes in indexes; builders make two

_BY_TAG = (
    "SELECT m.digest, m.media_type, d.raw FROM repositories r"
    " JOIN tags t ON t.repository = r.id AND t.folded = ? AND t.tag = ?"
    " JOIN manifests m ON m.repository = r.id AND m.digest = t.digest"
    " JOIN documents d ON d.digest = m.digest WHERE r.name = ?"
)
_BY_DIGEST = (
    "SELECT m.digest, m.media_type, d.raw FROM repositories r"
    " JOIN manifests m ON m.repository = r.id AND m.digest = ?"
    " JOIN documents d ON d.digest = m.digest WHERE r.name = ?"
)


class _Rows:
    """The driver's database, and how it is changed. `keep_history`: removal is not final."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float],
        keep_history: bool = False,
        quotas: Quotas | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._keep = keep_history
        self._quotas = quotas or Quotas()

    def _act(self, user: str, why: str) -> Act:
        return Act(self._clock(), user, why, self._keep)


class SqliteManifests(_Rows):
    """The `Manifests` port."""

    def find(self, repository: str, *, tag: str = "", digest: str = "") -> StoredManifest | None:
        reader = self._database.reader
        if digest:
            row = reader.execute(_BY_DIGEST, (digest, repository)).fetchone()
        else:
            row = reader.execute(_BY_TAG, (tag.lower(), tag, repository)).fetchone()
        return None if row is None else StoredManifest(*row)

    def put(
        self,
        repository: str,
        manifest: NewManifest,
        *,
        tags: Sequence[str] = (),
        user: str = "",
    ) -> None:
        act = self._act(user, "push")
        with self._database.writing() as connection:
            number = repository_id(connection, repository, make=True)
            for child in manifest.manifests:
                rescue(connection, number, str(child), at=act.at)
            _check_blobs(connection, number, manifest.blobs)
            depth = 1 + _depth(connection, number, manifest.manifests)
            with within_quota(connection, number, repository, self._quotas):
                _store(connection, number, manifest, depth=depth, now=act.at)
                for tag in tags:
                    set_tag(connection, number, tag, str(manifest.digest), act=act)

    def remove(self, repository: str, digest: Digest, *, user: str = "") -> bool:
        with self._database.writing() as connection:
            number = repository_id(connection, repository)
            return remove_manifest(connection, number, str(digest), act=self._act(user, "delete"))

    def untag(self, repository: str, tag: str, *, user: str = "") -> bool:
        with self._database.writing() as connection:
            number = repository_id(connection, repository)
            return drop_tag(connection, number, tag, act=self._act(user, "delete"))

    def tags(self, repository: str, *, n: int, last: str) -> Sequence[str] | None:
        reader = self._database.reader
        number = repository_id(reader, repository)
        rows = reader.execute(
            "SELECT tag FROM tags WHERE repository = ? AND (folded, tag) > (?, ?)"
            " ORDER BY folded, tag LIMIT ?",
            (number, last.lower(), last, n),
        ).fetchall()
        if not rows and not _holds_something(reader, number):
            return None
        return [tag for (tag,) in rows]

    def referrers(
        self, repository: str, subject: Digest, *, n: int, last: str, artifact_type: str = ""
    ) -> Sequence[Referrer]:
        reader = self._database.reader
        rows = reader.execute(
            "SELECT digest, media_type, size, artifact_type, annotations FROM manifests"
            " WHERE repository = ? AND subject = ? AND subject != '' AND digest > ?"
            " AND (? = '' OR artifact_type = ?) ORDER BY digest LIMIT ?",
            (
                repository_id(reader, repository),
                str(subject),
                last,
                artifact_type,
                artifact_type,
                n,
            ),
        )
        return [
            Referrer(digest, media_type, size, kind, tuple(json.loads(annotations).items()))
            for digest, media_type, size, kind, annotations in rows
        ]

    def repositories(self, *, n: int, last: str) -> Sequence[str]:
        rows = self._database.reader.execute(
            "SELECT name FROM repositories r WHERE name > ?"
            " AND EXISTS (SELECT 1 FROM manifests m WHERE m.repository = r.id)"
            " ORDER BY name LIMIT ?",
            (last, n),
        )
        return [name for (name,) in rows]


class SqliteCachedTags(_Rows):
    """The `CachedTags` port: manifests of upstreams beside those that were pushed here."""

    def tag(self, repository: str, tag: str) -> CachedTag | None:
        row = self._database.reader.execute(
            "SELECT t.digest, c.checked FROM repositories r"
            " JOIN tags t ON t.repository = r.id AND t.folded = ? AND t.tag = ?"
            " LEFT JOIN cached c ON c.repository = r.id AND c.tag = t.tag WHERE r.name = ?",
            (tag.lower(), tag, repository),
        ).fetchone()
        return None if row is None else CachedTag(*row)

    def put(self, repository: str, manifest: NewManifest, *, tag: str = "") -> None:
        act = self._act("", "upstream")
        with self._database.writing() as connection:
            number = repository_id(connection, repository, make=True)
            with within_quota(connection, number, repository, self._quotas):
                _store(connection, number, manifest, depth=1, now=act.at)
                if tag and not self._is_local(connection, number, tag):
                    set_tag(connection, number, tag, str(manifest.digest), act=act)
                    connection.execute(
                        "INSERT OR REPLACE INTO cached (repository, tag, checked) VALUES (?, ?, ?)",
                        (number, tag, act.at),
                    )

    def confirm(self, repository: str, tag: str, digest: str) -> None:
        with self._database.writing() as connection:
            connection.execute(
                "UPDATE cached SET checked = ? WHERE tag = ? AND repository ="
                " (SELECT r.id FROM repositories r JOIN tags t ON t.repository = r.id"
                " WHERE r.name = ? AND t.folded = ? AND t.tag = ? AND t.digest = ?)",
                (self._clock(), tag, repository, tag.lower(), tag, digest),
            )

    def forget(self, repository: str, tag: str) -> None:
        act = self._act("", "upstream")
        with self._database.writing() as connection:
            number = repository_id(connection, repository)
            if not self._is_local(connection, number, tag):
                drop_tag(connection, number, tag, act=act)

    def _is_local(self, connection: sqlite3.Connection, number: int, tag: str) -> bool:
        """Whether the tag was pushed here."""
        row = connection.execute(
            "SELECT 1 FROM tags t WHERE t.repository = ? AND t.folded = ? AND t.tag = ?"
            " AND NOT EXISTS (SELECT 1 FROM cached c WHERE c.repository = t.repository"
            " AND c.tag = t.tag)",
            (number, tag.lower(), tag),
        ).fetchone()
        return row is not None


@contextmanager
def within_quota(
    connection: sqlite3.Connection, number: int, repository: str, quotas: Quotas
) -> Iterator[None]:
    """A block of a transaction; at its end DENIED if it made the repository exceed its quota."""
    quota = quotas.of(repository)
    if quota is None:
        yield
        return
    bytes_before, tags_before = held(connection, number)
    yield
    bytes_after, tags_after = held(connection, number)
    if bytes_after > bytes_before:
        check_bytes(quota, held=bytes_before, more=bytes_after - bytes_before)
    if tags_after > tags_before:
        check_tags(quota, held=tags_before, more=tags_after - tags_before)


def held(connection: sqlite3.Connection, number: int) -> tuple[int, int]:
    """(bytes, tags) that the repository holds."""
    row = connection.execute(
        "SELECT bytes, (SELECT count(*) FROM tags WHERE repository = repositories.id)"
        " FROM repositories WHERE id = ?",
        (number,),
    ).fetchone()
    return (0, 0) if row is None else (int(row[0]), int(row[1]))


def _store(
    connection: sqlite3.Connection, number: int, manifest: NewManifest, *, depth: int, now: float
) -> None:
    """The manifest's rows, without its tags; one that was removed lives again."""
    if depth > MAX_NESTING:
        raise Refusal("MANIFEST_INVALID", f"indexes are nested deeper than {MAX_NESTING}")
    digest = str(manifest.digest)
    connection.execute(
        "INSERT INTO documents (digest, raw) VALUES (?, ?) ON CONFLICT DO NOTHING",
        (digest, manifest.raw),
    )
    connection.execute(
        "INSERT INTO manifests (repository, digest, media_type, subject,"
        " artifact_type, annotations, size, depth, pushed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " media_type = excluded.media_type, depth = max(depth, excluded.depth),"
        " pushed = excluded.pushed",
        (
            number,
            digest,
            manifest.media_type,
            manifest.subject,
            manifest.artifact_type,
            json.dumps(dict(manifest.annotations)),
            len(manifest.raw),
            depth,
            now,
        ),
    )
    connection.execute("DELETE FROM graves WHERE repository = ? AND digest = ?", (number, digest))
    children = {str(child) for child in (*manifest.blobs, *manifest.manifests)}
    connection.executemany(
        "INSERT OR IGNORE INTO children (repository, parent, child) VALUES (?, ?, ?)",
        [(number, digest, child) for child in children],
    )


def _check_blobs(connection: sqlite3.Connection, number: int, digests: Sequence[Digest]) -> None:
    for digest in digests:
        found = connection.execute(
            "SELECT 1 FROM links WHERE repository = ? AND digest = ?"
            " UNION ALL SELECT 1 FROM manifests WHERE repository = ? AND digest = ?",
            (number, str(digest), number, str(digest)),
        ).fetchone()
        if found is None:
            raise unknown(digest)


def _depth(connection: sqlite3.Connection, number: int, digests: Sequence[Digest]) -> int:
    deepest = 0
    for digest in digests:
        row = connection.execute(
            "SELECT depth FROM manifests WHERE repository = ? AND digest = ?",
            (number, str(digest)),
        ).fetchone()
        if row is None:
            raise unknown(digest)
        deepest = max(deepest, row[0])
    return deepest


def unknown(digest: Digest) -> Refusal:
    """That the manifest needs what its repository does not hold."""
    return Refusal(
        "MANIFEST_BLOB_UNKNOWN",
        f"the manifest needs {digest}, which the repository does not hold",
        detail={"digest": str(digest)},
    )


def _holds_something(reader: sqlite3.Connection, number: int) -> bool:
    row = reader.execute(
        "SELECT EXISTS (SELECT 1 FROM manifests WHERE repository = ?)"
        " OR EXISTS (SELECT 1 FROM links WHERE repository = ?)",
        (number, number),
    ).fetchone()
    return bool(row[0])
