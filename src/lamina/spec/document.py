# SPDX-License-Identifier: Apache-2.0
"""JSON documents of the OCI specifications: bounded parsing and canonical writing."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.jsontext import dumps, loads

MAX_DOCUMENT = 4 * 1024 * 1024  # bytes; what registries accept for a manifest (distribution)
MAX_DEPTH = 64


class InvalidDocument(LaminaError):
    kind = Kind.INVALID


class DocumentTooLarge(InvalidDocument):
    """A document that would be written could not be read again."""


def parse_object(raw: bytes, *, what: str, limit: int = MAX_DOCUMENT) -> dict[str, object]:
    """The JSON object in `raw`.

    Raises:
        InvalidDocument: too large, not UTF-8 JSON, nested too deeply, or not an object.
    """
    if len(raw) > limit:
        raise InvalidDocument(f"invalid {what}: larger than {limit} bytes")
    try:
        # decoded here: json.loads would also accept UTF-16 and UTF-32 bytes
        text = raw.decode()
        document = loads(text, parse_float=_finite, parse_constant=_finite)
        if "\\u" in text:
            dump(document)  # an escaped lone surrogate is JSON but no text that can be written
    except (ValueError, RecursionError) as error:
        raise InvalidDocument(f"invalid {what}: {error}") from error
    if not isinstance(document, dict):
        raise InvalidDocument(f"invalid {what}: not a JSON object")
    _check_depth(document, what)
    return document


def dump(document: object) -> bytes:
    """Compact UTF-8 JSON with keys in the order given; the same document gives the same bytes."""
    return dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def dump_bounded(document: object, *, what: str, limit: int = MAX_DOCUMENT) -> bytes:
    """As `dump`, for documents that are read with this limit.

    Raises:
        DocumentTooLarge: it has more bytes than that.
    """
    raw = dump(document)
    if len(raw) > limit:
        raise DocumentTooLarge(f"the {what} would have {len(raw)} bytes, and may have {limit}")
    return raw


def _finite(text: str) -> float:
    """The number; NaN, Infinity and 1e999 could not be written again as JSON."""
    value = float(text)
    if value - value != 0.0:
        raise ValueError(f"number {text} is out of range")
    return value


def _check_depth(document: object, what: str) -> None:
    level: list[object] = [document]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        if not below:
            return
        level = below
    raise InvalidDocument(f"invalid {what}: nested deeper than {MAX_DEPTH} levels")
