# SPDX-License-Identifier: Apache-2.0
"""What the database knows of repositories beyond the API: sizes and times (the `Overview` port)."""

from __future__ import annotations

from lamina.server.database import repository_id
from lamina.server.ports import Summary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina.server.database import Database


class SqliteOverview:
    """The `Overview` port on the driver's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def summary(self, repository: str) -> Summary:
        reader = self._database.reader
        number = repository_id(reader, repository)
        (tags,) = reader.execute(
            "SELECT COUNT(*) FROM tags WHERE repository = ?", (number,)
        ).fetchone()
        manifests, documents, pushed = reader.execute(
            "SELECT COUNT(*), SUM(size), MAX(pushed) FROM manifests WHERE repository = ?", (number,)
        ).fetchone()
        (blobs,) = reader.execute(
            "SELECT SUM(b.size) FROM links l JOIN blobs b ON b.digest = l.digest"
            " WHERE l.repository = ?",
            (number,),
        ).fetchone()
        return Summary(tags, manifests, (documents or 0) + (blobs or 0), pushed or 0.0)

    def tagged(self, repository: str) -> Mapping[str, float]:
        reader = self._database.reader
        rows = reader.execute(
            "SELECT tag, updated FROM tags WHERE repository = ?",
            (repository_id(reader, repository),),
        )
        return dict(rows.fetchall())

    def pushed(self, repository: str, digest: str) -> float:
        reader = self._database.reader
        row = reader.execute(
            "SELECT pushed FROM manifests WHERE repository = ? AND digest = ?",
            (repository_id(reader, repository), digest),
        ).fetchone()
        return 0.0 if row is None else float(row[0])
