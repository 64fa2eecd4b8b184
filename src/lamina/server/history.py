# SPDX-License-Identifier: Apache-2.0
"""Moves of tags, and manifests between their removal and their end, as rows.

A removed manifest is moved from `manifests` to `graves` and keeps its rows in `children` and
`documents`: so the collector keeps what it needs, and it can be brought back in one transaction.
After the window `expire` ends it. Where nothing is kept (a window of 0), removal is final.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3

    from lamina.server.database import Database

_BATCH = 100  # as the collector's
BY_RULE = ("retention", "untagged-after")  # removals that nobody asked for by name
_COLUMNS = "repository, digest, media_type, subject, artifact_type, annotations, size, depth"
# Nothing needs the manifest: no tag, no index, no subject. Removed ones do not count: a manifest is
# removed after what needs it, so it can be had back for longer.
UNNEEDED = (
    "NOT EXISTS (SELECT 1 FROM tags t WHERE t.repository = m.repository AND t.digest = m.digest)"
    " AND NOT EXISTS (SELECT 1 FROM children c JOIN manifests i ON i.repository = c.repository"
    " AND i.digest = c.parent WHERE c.repository = m.repository AND c.child = m.digest)"
    " AND (m.subject = '' OR NOT EXISTS (SELECT 1 FROM manifests s"
    " WHERE s.repository = m.repository AND s.digest = m.subject))"
)


class Act(Record):
    """A change: when (POSIX seconds), whose, why; `keep`: whether the past is kept."""

    at: float
    user: str
    why: str
    keep: bool


def set_tag(
    connection: sqlite3.Connection, number: int, tag: str, digest: str, *, act: Act
) -> None:
    """Point the tag to the manifest; from now on it is one that was pushed here."""
    previous = tagged(connection, number, tag)
    connection.execute(
        "INSERT OR REPLACE INTO tags (repository, folded, tag, digest, updated)"
        " VALUES (?, ?, ?, ?, ?)",
        (number, tag.lower(), tag, digest, act.at),
    )
    connection.execute("DELETE FROM cached WHERE repository = ? AND tag = ?", (number, tag))
    if previous != digest:
        _note(connection, number, tag, digest=digest, previous=previous, act=act)


def drop_tag(connection: sqlite3.Connection, number: int, tag: str, *, act: Act) -> bool:
    """Remove the tag; False if there is none."""
    previous = tagged(connection, number, tag)
    if not previous:
        return False
    connection.execute(
        "DELETE FROM tags WHERE repository = ? AND folded = ? AND tag = ?",
        (number, tag.lower(), tag),
    )
    connection.execute("DELETE FROM cached WHERE repository = ? AND tag = ?", (number, tag))
    _note(connection, number, tag, digest="", previous=previous, act=act)
    return True


def tagged(connection: sqlite3.Connection, number: int, tag: str) -> str:
    """The digest that the tag points to; empty if there is no such tag."""
    row = connection.execute(
        "SELECT digest FROM tags WHERE repository = ? AND folded = ? AND tag = ?",
        (number, tag.lower(), tag),
    ).fetchone()
    return "" if row is None else str(row[0])


def remove_manifest(connection: sqlite3.Connection, number: int, digest: str, *, act: Act) -> bool:
    """Remove the manifest and its tags; False if the repository does not hold it."""
    key = (number, digest)
    if not _holds(connection, "manifests", number, digest):
        return False
    tags = connection.execute("SELECT tag FROM tags WHERE repository = ? AND digest = ?", key)
    for (tag,) in tags.fetchall():
        drop_tag(connection, number, tag, act=act)
    if act.keep:
        connection.execute(
            f"INSERT INTO graves ({_COLUMNS}, pushed, removed, user, why)"  # noqa: S608  # constant
            f" SELECT {_COLUMNS}, pushed, ?, ?, ? FROM manifests WHERE repository = ?"
            " AND digest = ?",
            (act.at, act.user, act.why, *key),
        )
    connection.execute("DELETE FROM manifests WHERE repository = ? AND digest = ?", key)
    if not act.keep:
        _erase(connection, number, digest)
    return True


def remove_unneeded(
    connection: sqlite3.Connection, number: int, digest: str, *, act: Act, settled: float
) -> int:
    """Remove the manifest if nothing needs it, then what only it needed and what refers to it; how
    many manifests went.

    Where removal is final, what was pushed after `settled` stays: its index may be on its way.
    Otherwise `rescue` brings such a part back.
    """
    waiting, removed = [digest], 0
    while waiting:
        found = waiting.pop()
        free = connection.execute(
            "SELECT m.pushed FROM manifests m"  # noqa: S608  # constant
            f" WHERE m.repository = ? AND m.digest = ? AND {UNNEEDED}",
            (number, found),
        ).fetchone()
        if free is None or (removed and not act.keep and free[0] > settled):
            continue
        # two queries: with OR sqlite reads every manifest of the repository
        parts = connection.execute(
            "SELECT m.digest FROM children c JOIN manifests m ON m.repository = c.repository"
            " AND m.digest = c.child WHERE c.repository = ? AND c.parent = ?"
            " UNION SELECT digest FROM manifests"
            " WHERE repository = ? AND subject = ? AND subject != ''",
            (number, found, number, found),
        ).fetchall()
        removed += remove_manifest(connection, number, found, act=act)
        waiting += [name for (name,) in parts]
    return removed


def rescue(connection: sqlite3.Connection, number: int, digest: str, *, at: float) -> bool:
    """Bring back what a rule removed while a client, told that it exists, pushes what needs it."""
    row = connection.execute(
        "SELECT why FROM graves WHERE repository = ? AND digest = ?", (number, digest)
    ).fetchone()
    if row is None or row[0] not in BY_RULE:
        return False
    return bool(revive(connection, number, digest, at=at))


def revive(connection: sqlite3.Connection, number: int, digest: str, *, at: float) -> list[str]:
    """Bring the manifest back, with what it needs and what refers to it; the digests, it first.

    Nothing for one that is there. It counts as pushed at `at`, so no rule takes it again at once.

    Raises:
        LaminaError: kind NOT_FOUND if it, or something that it needs, is gone.
    """
    if _holds(connection, "manifests", number, digest):
        return []
    if not _holds(connection, "graves", number, digest):
        raise LaminaError(
            f"{digest} is not here, and was not removed within the time that is kept",
            kind=Kind.NOT_FOUND,
        )
    revived: list[str] = []
    needed = connection.execute(
        "SELECT child FROM children WHERE repository = ? AND parent = ?", (number, digest)
    ).fetchall()
    for (child,) in needed:
        if _holds(connection, "graves", number, child) or not _holds(
            connection, "links", number, child
        ):
            revived += revive(connection, number, child, at=at)
    connection.execute(
        f"INSERT INTO manifests ({_COLUMNS}, pushed) SELECT {_COLUMNS}, ? FROM graves"  # noqa: S608  # constant
        " WHERE repository = ? AND digest = ?",
        (at, number, digest),
    )
    connection.execute("DELETE FROM graves WHERE repository = ? AND digest = ?", (number, digest))
    referrers = connection.execute(
        "SELECT digest FROM graves WHERE repository = ? AND subject = ? AND subject != ''",
        (number, digest),
    ).fetchall()
    for (referrer,) in referrers:
        if _is_whole(connection, number, referrer):
            revived += revive(connection, number, referrer, at=at)
    return [digest, *revived]


def expire(database: Database, before: float) -> int:
    """End what was removed before that time and forget older moves; how many manifests ended.

    The last move of a tag that exists is kept: it says who set it.
    """
    ended = 0
    while True:
        rows = database.reader.execute(
            "SELECT repository, digest FROM graves WHERE removed < ? LIMIT ?", (before, _BATCH)
        ).fetchall()
        if not rows:
            break
        with database.writing() as connection:
            for number, digest in rows:
                gone = connection.execute(
                    "DELETE FROM graves WHERE repository = ? AND digest = ? AND removed < ?",
                    (number, digest, before),
                ).rowcount
                if gone:
                    _erase(connection, number, digest)
                    ended += 1
    old = (
        "moved < ? AND (digest = '' OR EXISTS (SELECT 1 FROM moves n WHERE n.repository ="
        " moves.repository AND n.tag = moves.tag AND n.id > moves.id))"
    )
    if database.reader.execute(f"SELECT 1 FROM moves WHERE {old}", (before,)).fetchone():  # noqa: S608  # constant
        with database.writing() as connection:
            connection.execute(f"DELETE FROM moves WHERE {old}", (before,))  # noqa: S608  # constant
    return ended


def _note(
    connection: sqlite3.Connection, number: int, tag: str, *, digest: str, previous: str, act: Act
) -> None:
    if act.keep:
        connection.execute(
            "INSERT INTO moves (repository, tag, digest, previous, moved, user, why)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (number, tag, digest, previous, act.at, act.user, act.why),
        )


def _erase(connection: sqlite3.Connection, number: int, digest: str) -> None:
    """Remove what is left of a manifest that is in neither table any more."""
    key = (number, digest)
    connection.execute("DELETE FROM children WHERE repository = ? AND parent = ?", key)
    connection.execute("DELETE FROM pulls WHERE repository = ? AND digest = ?", key)
    connection.execute(
        "DELETE FROM documents WHERE digest = ?"
        " AND NOT EXISTS (SELECT 1 FROM manifests m WHERE m.digest = documents.digest)"
        " AND NOT EXISTS (SELECT 1 FROM graves g WHERE g.digest = documents.digest)",
        (digest,),
    )


def _holds(connection: sqlite3.Connection, table: str, number: int, digest: str) -> bool:
    row = connection.execute(
        f"SELECT 1 FROM {table} WHERE repository = ? AND digest = ?",  # noqa: S608  # our names
        (number, digest),
    ).fetchone()
    return row is not None


def _is_whole(connection: sqlite3.Connection, number: int, digest: str) -> bool:
    """Whether everything that a removed manifest needs is there, or was removed too."""
    row = connection.execute(
        "SELECT 1 FROM children c WHERE c.repository = ? AND c.parent = ?"
        " AND NOT EXISTS (SELECT 1 FROM links l WHERE l.repository = c.repository"
        " AND l.digest = c.child)"
        " AND NOT EXISTS (SELECT 1 FROM manifests m WHERE m.repository = c.repository"
        " AND m.digest = c.child)"
        " AND NOT EXISTS (SELECT 1 FROM graves g WHERE g.repository = c.repository"
        " AND g.digest = c.child)",
        (number, digest),
    ).fetchone()
    return row is None
