# SPDX-License-Identifier: Apache-2.0
"""`loads` and `dumps` as of the standard `json`, which is imported only to say what is wrong.

`json` is a thin layer on the C module `_json`, but imports `re` (with `enum`, `functools`) for it:
8 ms of a start. Here the C scanner and encoder are called with what `json` would pass; whatever they
do not take, and an interpreter without `_json`, goes to `json` itself, which decides and names the
error. tests/property/spec/test_jsontext.py holds the two equal.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    make_scanner: Callable[[object], Callable[[str, int], tuple[Any, int]]] | None
    make_encoder: Callable[..., Callable[[object, int], tuple[str, ...]]] | None
    encode_basestring: Callable[[str], str]
    encode_basestring_ascii: Callable[[str], str]
else:
    try:
        from _json import encode_basestring, encode_basestring_ascii, make_encoder, make_scanner
    except ImportError:  # PyPy, or a build without accelerators
        make_scanner = make_encoder = None

_SPACE = " \t\n\r"  # RFC 8259 §2
_CONSTANTS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class _Decoding:
    """The attributes that the C scanner reads of a `json.JSONDecoder`."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_int = int

    def __init__(
        self,
        parse_float: Callable[[str], Any] | None,
        parse_constant: Callable[[str], Any] | None,
    ) -> None:
        self.parse_float = parse_float or float
        self.parse_constant = parse_constant or _CONSTANTS.__getitem__
        self.memo: dict[str, str] = {}


def loads(
    text: str | bytes,
    *,
    parse_float: Callable[[str], Any] | None = None,
    parse_constant: Callable[[str], Any] | None = None,
) -> Any:
    """The value of the JSON `text`. Raises ValueError (json.JSONDecodeError) and RecursionError."""
    if make_scanner is not None and isinstance(text, str):
        scan = make_scanner(_Decoding(parse_float, parse_constant))
        start = len(text) - len(text.lstrip(_SPACE))
        try:
            value, end = scan(text, start)
            if not text[end:].strip(_SPACE):
                return value
        except (StopIteration, ValueError, SystemError):
            pass  # json says it better; while it is not imported, the scanner has no error to raise
    import json

    return json.loads(text, parse_float=parse_float, parse_constant=parse_constant)


def dumps(
    value: object, *, separators: tuple[str, str] = (", ", ": "), ensure_ascii: bool = True
) -> str:
    """`value` as JSON on one line. Raises TypeError, ValueError and RecursionError as json does."""
    if make_encoder is not None:
        item, key = separators
        encode_string = encode_basestring_ascii if ensure_ascii else encode_basestring
        encode = make_encoder({}, _no_default, encode_string, None, key, item, False, False, True)
        try:
            return "".join(encode(value, 0))
        except (TypeError, ValueError):
            pass  # json says it better
    import json

    return json.dumps(value, separators=separators, ensure_ascii=ensure_ascii)


def _no_default(value: object) -> object:
    raise TypeError(type(value).__name__)
