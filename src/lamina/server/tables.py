# SPDX-License-Identifier: Apache-2.0
"""Values of a TOML document, checked, with errors that say the line."""

from __future__ import annotations

import os
import re

from lamina.errors import SourceError
from lamina.spec.span import Span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina.spec.span import SourceText

_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|TiB)?")
_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_TIME = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Reader:
    """Reads values of a parsed document; `place` is a table's name (`rules#1`: the second one)."""

    def __init__(self, source: SourceText, document: dict[str, object], directory: str) -> None:
        self._source = source
        self._document = document
        self._directory = directory

    def table(self, name: str) -> dict[str, object]:
        value: object = self._document
        for part in name.split("."):
            assert isinstance(value, dict)
            value = value.get(part, {})
            if not isinstance(value, dict):
                self.fail("", part, f"{name} must be a table: [{name}]")
        assert isinstance(value, dict)
        return value

    def tables(self, name: str) -> list[dict[str, object]]:
        value = self._document.get(name, [])
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            self.fail("", name, f"{name} must be an array of tables: [[{name}]]")
        assert isinstance(value, list)
        return value

    def known(self, table: Mapping[str, object], place: str, keys: tuple[str, ...]) -> None:
        for key in table:
            if key not in keys:
                import difflib

                close = difflib.get_close_matches(key, keys, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(keys)}"
                self.fail(place, key, f"unknown key {key!r}", hint=hint)

    def text(self, table: Mapping[str, object], place: str, key: str, default: str) -> str:
        value = table.get(key, default)
        if not isinstance(value, str):
            self.fail(place, key, f"{key} must be a string")
        assert isinstance(value, str)
        return value

    def texts(self, table: Mapping[str, object], place: str, key: str) -> tuple[str, ...]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            self.fail(place, key, f"{key} must be a list of strings")
        assert isinstance(value, list)
        return tuple(value)

    def boolean(
        self, table: Mapping[str, object], place: str, key: str, *, default: bool = False
    ) -> bool:
        value = table.get(key, default)
        if not isinstance(value, bool):
            self.fail(place, key, f"{key} must be true or false")
        return bool(value)

    def number(
        self, table: Mapping[str, object], place: str, key: str, default: int, *, least: int
    ) -> int:
        value = table.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            self.fail(place, key, f"{key} must be a number of at least {least}")
        assert isinstance(value, int)
        return value

    def size(self, table: Mapping[str, object], place: str, key: str, default: int) -> int:
        value = table.get(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            self.fail(place, key, f"{key} must be a size: bytes, or like '4MiB'")
        assert match is not None
        return int(match[1]) * _UNITS[match[2] or ""]

    def time(self, table: Mapping[str, object], place: str, key: str, default: float) -> float:
        value = table.get(key, default)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
            return float(value)
        match = _TIME.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            self.fail(place, key, f"{key} must be a time: seconds, or like '90s', '15m', '30d'")
        assert match is not None
        return float(match[1]) * _SECONDS[match[2]]

    def path(self, table: Mapping[str, object], place: str, key: str) -> str:
        value = self.text(table, place, key, "")
        return self.absolute(value) if value else ""

    def absolute(self, path: str) -> str:
        return os.path.join(self._directory, path)

    def fail(self, place: str, key: str, what: str, *, hint: str = "") -> None:
        """Raise SourceError with the line of the key (of the table, if it is not there)."""
        line = _line_of(self._source.lines, place, key)
        span = Span(self._source, line, line) if line else None
        raise SourceError(what, span=span, hint=hint)


_HEADER = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.\"' -]+?)\s*\]\]?\s*(?:#.*)?")


def _line_of(lines: tuple[str, ...], place: str, key: str) -> int:
    """The 1-based line of a key in a table (`rules#1`: the second), else of the table; 0 if unknown."""
    wanted, _, number = place.partition("#")
    remaining = int(number or 0)
    inside = not wanted
    of_table = 0
    for position, line in enumerate(lines, start=1):
        header = _HEADER.fullmatch(line)
        if header is not None:
            found = header[2].replace('"', "").replace(" ", "")
            inside = found == wanted and remaining == 0
            if inside:
                of_table = position
            elif found == wanted and header[1] == "[[":
                remaining -= 1
            if (not wanted and found == key) or (
                key and f"{wanted}.{key}".startswith(found) and found == f"{wanted}.{key}"
            ):
                return position
        elif inside and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*[=.]""", line) and key:
            return position
    return of_table
