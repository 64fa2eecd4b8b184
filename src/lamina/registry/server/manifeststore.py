# SPDX-License-Identifier: Apache-2.0
"""Manifests, tags and referrers as rows (the `Manifests` port)."""

from __future__ import annotations

import json

from lamina.registry.server.database import Database, repository_id
from lamina.registry.server.ports import NewManifest, Referrer, StoredManifest
from lamina.registry.server.wire import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

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


class SqliteManifests:
    """The `Manifests` port on the driver's database."""

    def __init__(self, database: Database, *, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    def find(self, repository: str, *, tag: str = "", digest: str = "") -> StoredManifest | None:
        reader = self._database.reader
        if digest:
            row = reader.execute(_BY_DIGEST, (digest, repository)).fetchone()
        else:
            row = reader.execute(_BY_TAG, (tag.lower(), tag, repository)).fetchone()
        return None if row is None else StoredManifest(*row)

    def put(self, repository: str, manifest: NewManifest, *, tags: Sequence[str] = ()) -> None:
        digest = str(manifest.digest)
        now = self._clock()
        with self._database.writing() as connection:
            number = repository_id(connection, repository, make=True)
            children = {str(child) for child in (*manifest.blobs, *manifest.manifests)}
            _check_blobs(connection, number, manifest.blobs)
            depth = 1 + _depth(connection, number, manifest.manifests)
            if depth > MAX_NESTING:
                raise Refusal("MANIFEST_INVALID", f"indexes are nested deeper than {MAX_NESTING}")
            connection.execute(
                "INSERT INTO documents (digest, raw) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (digest, manifest.raw),
            )
            connection.execute(
                "INSERT OR REPLACE INTO manifests (repository, digest, media_type, subject,"
                " artifact_type, annotations, size, depth, pushed)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
            connection.executemany(
                "INSERT OR IGNORE INTO children (repository, parent, child) VALUES (?, ?, ?)",
                [(number, digest, child) for child in children],
            )
            connection.executemany(
                "INSERT OR REPLACE INTO tags (repository, folded, tag, digest, updated)"
                " VALUES (?, ?, ?, ?, ?)",
                [(number, tag.lower(), tag, digest, now) for tag in tags],
            )

    def remove(self, repository: str, digest: Digest) -> bool:
        with self._database.writing() as connection:
            number = repository_id(connection, repository)
            return remove_manifest(connection, number, str(digest))

    def untag(self, repository: str, tag: str) -> bool:
        with self._database.writing() as connection:
            removed = connection.execute(
                "DELETE FROM tags WHERE repository = ? AND folded = ? AND tag = ?",
                (repository_id(connection, repository), tag.lower(), tag),
            ).rowcount
        return removed > 0

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


def remove_manifest(connection: sqlite3.Connection, number: int, digest: str) -> bool:
    """Remove the manifest, its tags, and its bytes if no other repository holds them."""
    removed = connection.execute(
        "DELETE FROM manifests WHERE repository = ? AND digest = ?", (number, digest)
    ).rowcount
    if not removed:
        return False
    connection.execute("DELETE FROM tags WHERE repository = ? AND digest = ?", (number, digest))
    connection.execute("DELETE FROM children WHERE repository = ? AND parent = ?", (number, digest))
    connection.execute(
        "DELETE FROM documents WHERE digest = ?"
        " AND NOT EXISTS (SELECT 1 FROM manifests m WHERE m.digest = documents.digest)",
        (digest,),
    )
    return True


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
