# SPDX-License-Identifier: Apache-2.0
"""`key=value,...` as Docker's flags write it (`--output`, `--cache-to`): one value of such a flag.

`what` names the flag in messages. Every attribute works or is refused by name.
"""

from __future__ import annotations

import csv

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

COMPRESSIONS = {"uncompressed": 0, "gzip": 9, "zstd": 22}  # -> highest level
_BOOLEANS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


class InvalidAttribute(LaminaError):
    """A value of a flag that means nothing; UNSUPPORTED if it asks for what lamina does not do."""

    kind = Kind.USAGE


def split_fields(what: str, text: str) -> list[str]:
    """The comma-separated fields; a field in double quotes may hold commas (CSV).

    Raises:
        InvalidAttribute: a quote that is not closed.
    """
    if '"' not in text:
        return text.split(",")
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise InvalidAttribute(f"invalid {what} {text!r}: {error}") from error
    return rows[0] if rows else [""]


class Attributes(dict[str, str]):
    """The attributes by name, in lower case.

    Raises:
        InvalidAttribute: a field is no `key=value`, or a key is given twice.
    """

    def __init__(self, what: str, text: str, fields: Sequence[str]) -> None:
        self.what = what
        for field in fields:
            key, equals, value = field.partition("=")
            key = key.strip().lower()
            if not equals or not key:
                raise InvalidAttribute(
                    f"invalid {what} {text!r}: expected key=value, got {field!r}"
                )
            if key in self:
                raise InvalidAttribute(f"invalid {what} {text!r}: {key} is given twice")
            self[key] = value

    def refuse_others(self, type: str, allowed: frozenset[str]) -> None:
        """Raise InvalidAttribute (UNSUPPORTED) for a key that the type does not know."""
        for key in self:
            if key not in allowed:
                raise InvalidAttribute(
                    f"{self.what} type={type} does not support {key!r}",
                    kind=Kind.UNSUPPORTED,
                    hint=f"supported: {', '.join(sorted(allowed))}",
                )

    def boolean(self, key: str, *, default: bool) -> bool:
        """The attribute as Go's strconv.ParseBool reads it. Raises InvalidAttribute."""
        text = self.get(key)
        if text is None:
            return default
        value = _BOOLEANS.get(text.lower())
        if value is None:
            raise InvalidAttribute(f"invalid {self.what}: {key}={text} is not a boolean")
        return value

    def compression(self) -> str:
        """`compression`, one of COMPRESSIONS. Raises InvalidAttribute (UNSUPPORTED)."""
        compression = self.get("compression", "gzip")
        if compression not in COMPRESSIONS:
            raise InvalidAttribute(
                f"{self.what} compression={compression} is not supported",
                kind=Kind.UNSUPPORTED,
                hint=f"supported: {', '.join(COMPRESSIONS)}",
            )
        return compression

    def compression_level(self) -> int | None:
        """`compression-level`, None for the compression's own. Raises InvalidAttribute."""
        text = self.get("compression-level", "")
        if not text:
            return None
        highest = COMPRESSIONS[self.compression()]
        if not (text.isascii() and text.isdigit()) or int(text) > highest:
            raise InvalidAttribute(
                f"invalid {self.what}: compression-level={text} is not a number from 0 to {highest}"
            )
        return int(text)
