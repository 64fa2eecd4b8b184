# SPDX-License-Identifier: Apache-2.0
"""Documents: small records of rooms above the store (ports.Documents)."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.store.ports import Document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.store.database import Database, Row, Transaction

_COLUMNS = "SELECT kind, id, name, body, created FROM documents"


class DocumentExists(LaminaError):
    kind = Kind.CONFLICT


class DocumentNotFound(LaminaError):
    kind = Kind.NOT_FOUND


class DocumentTable:
    """The documents of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(self, document: Document) -> None:
        row = (document.kind, document.id, document.name, document.body, document.created)

        def work(transaction: Transaction) -> None:
            self._refuse_taken(transaction, document.kind, "id", document.id)
            self._refuse_taken(transaction, document.kind, "name", document.name)
            transaction.run("INSERT INTO documents VALUES (?, ?, ?, ?, ?)", row)

        self._database.write(work)

    def update(self, kind: str, id: str, body: str) -> None:
        self._change(kind, id, "body", body)

    def rename(self, kind: str, id: str, name: str) -> None:
        def refuse(transaction: Transaction) -> None:
            taken = transaction.row(
                "SELECT id FROM documents WHERE kind = ? AND name = ?", (kind, name)
            )
            if taken is not None and taken[0] != id:
                raise _exists(kind, "name", name)

        self._change(kind, id, "name", name, first=refuse)

    def get(self, kind: str, id: str) -> Document | None:
        rows = self._database.read(f"{_COLUMNS} WHERE kind = ? AND id = ?", (kind, id))
        return _document(rows[0]) if rows else None

    def find(self, kind: str, text: str) -> list[Document]:
        exact = self._database.read(
            f"{_COLUMNS} WHERE kind = ? AND (name = ? OR id = ?) ORDER BY name <> ? LIMIT 1",
            (kind, text, text, text),
        )
        if exact:
            return [_document(exact[0])]
        rows = self._database.read(
            f"{_COLUMNS} WHERE kind = ? AND substr(id, 1, ?) = ? ORDER BY created, id",
            (kind, len(text), text),
        )
        return [_document(row) for row in rows]

    def list(self, kind: str) -> list[Document]:
        rows = self._database.read(f"{_COLUMNS} WHERE kind = ? ORDER BY created, id", (kind,))
        return [_document(row) for row in rows]

    def delete(self, kind: str, id: str) -> None:
        self._database.write(
            lambda transaction: transaction.run(
                "DELETE FROM documents WHERE kind = ? AND id = ?", (kind, id)
            )
        )

    def _change(
        self,
        kind: str,
        id: str,
        column: str,
        value: str,
        *,
        first: Callable[[Transaction], None] | None = None,
    ) -> None:
        def work(transaction: Transaction) -> None:
            if first is not None:
                first(transaction)
            statement = f"UPDATE documents SET {column} = ? WHERE kind = ? AND id = ?"  # noqa: S608  # our own column names
            changed = transaction.run(statement, (value, kind, id))
            if not changed:
                raise DocumentNotFound(f"{kind} {id} does not exist")

        self._database.write(work)

    def _refuse_taken(self, transaction: Transaction, kind: str, column: str, value: str) -> None:
        query = f"SELECT 1 FROM documents WHERE kind = ? AND {column} = ?"  # noqa: S608  # our own column names
        if transaction.row(query, (kind, value)):
            raise _exists(kind, column, value)


def _exists(kind: str, column: str, value: str) -> DocumentExists:
    return DocumentExists(f"{kind} {column} {value!r} is already in use")


def _document(row: Row) -> Document:
    return Document(*row)
