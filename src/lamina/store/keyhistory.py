# SPDX-License-Identifier: Apache-2.0
"""Cache records by name, and keys that were pruned: what explanations of cache misses look at.

Reads only, except that a store made before the index of names existed gets it on first use.
"""

from __future__ import annotations

from lamina.store.ports import EarlierKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.spec.digest import Stack
    from lamina.store.database import Database, Transaction
    from lamina.store.ports import CacheRecord

MAX_NAMES = 500  # newest records of one stage that are considered
_MAX_VARIABLES = 500  # below sqlite's limit of 999 in old builds
_MAX_PRUNED = 4000  # keys remembered as pruned
_PREFIX = 16  # hexadecimal digits kept of each
INDEX = "CREATE INDEX IF NOT EXISTS cache_names ON cache(name, created)"


class KeyHistory:
    """See ports.KeyHistory."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._is_indexed = False

    def names(self, stage: str, *, before: float) -> list[tuple[str, str]]:
        self._index()
        start = f"[{stage} " if stage else "["
        end = start[:-1] + chr(ord(start[-1]) + 1)
        numbered = "" if stage else " AND name GLOB '[[][ 0-9]*/[0-9]*'"
        query = (
            "SELECT name, key FROM cache WHERE name >= ? AND name < ? AND created < ?"  # noqa: S608  # constants
            f"{numbered} ORDER BY created DESC LIMIT ?"
        )
        rows = self._database.read(query, (start, end, before, MAX_NAMES))
        return [(str(name), str(key)) for name, key in rows]

    def instructions(self, text: str, *, before: float) -> list[str]:
        self._index()
        end = f"] {text}"
        query = (
            "SELECT key FROM cache INDEXED BY cache_names"
            " WHERE substr(name, -?) = ? AND created < ? ORDER BY created DESC LIMIT ?"
        )
        rows = self._database.read(query, (len(end), end, before, MAX_NAMES))
        return [str(key) for (key,) in rows]

    def trees(self, keys: Sequence[str], *, before: float | None = None) -> list[EarlierKey]:
        found: list[EarlierKey] = []
        for start in range(0, len(keys), _MAX_VARIABLES):
            some = list(keys[start : start + _MAX_VARIABLES])
            marks = ",".join("?" * len(some))
            query = f"SELECT key, name, tree, created FROM cache WHERE key IN ({marks})"  # noqa: S608  # only marks
            for key, name, tree, created in self._database.read(query, some):
                if before is None or created < before:
                    found.append(EarlierKey(str(key), str(name), str(tree), float(created)))
        return found

    def of_results(self, results: Sequence[Stack]) -> list[CacheRecord]:
        from lamina.store.metadata import parse_cache_row, result_text

        texts = [result_text(result) for result in results]
        found: list[CacheRecord] = []
        for start in range(0, len(texts), _MAX_VARIABLES):
            some = texts[start : start + _MAX_VARIABLES]
            marks = ",".join("?" * len(some))
            query = f"SELECT * FROM cache WHERE result IN ({marks})"  # noqa: S608  # only marks
            rows = map(parse_cache_row, self._database.read(query, some))
            found += [row for row in rows if row is not None]
        return found

    def was_pruned(self, key: str) -> bool:
        rows = self._database.read("SELECT value FROM state WHERE key = 'pruned'")
        return bool(rows) and _shortened(key) in str(rows[0][0]).split()

    def _index(self) -> None:
        if self._is_indexed:
            return
        if not self._database.read("SELECT 1 FROM sqlite_master WHERE name = 'cache_names'"):
            self._database.write(lambda transaction: transaction.run(INDEX))
        self._is_indexed = True


def remember_pruned(transaction: Transaction, keys: Sequence[str]) -> None:
    """Note that the records of these keys were removed on purpose; the oldest are forgotten."""
    row = transaction.row("SELECT value FROM state WHERE key = 'pruned'")
    known = str(row[0]).split() if row is not None else []
    words = list(dict.fromkeys([*known, *map(_shortened, keys)]))[-_MAX_PRUNED:]
    transaction.run("INSERT OR REPLACE INTO state VALUES ('pruned', ?)", (" ".join(words),))


def _shortened(key: str) -> str:
    return key.rpartition(":")[2][:_PREFIX]
