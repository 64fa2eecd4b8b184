# SPDX-License-Identifier: Apache-2.0
"""The functions of bake files: the pure ones of buildx's list. The others are refused by name."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import posixpath
import re
from urllib.parse import quote_plus

from lamina.bake.values import BakeError, get, to_number, to_text
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

REFUSED = frozenset(
    "bcrypt bytesslice cidrhost cidrnetmask cidrsubnet cidrsubnets convert csvdecode formatdate"  # noqa: SIM905  # a list of words
    " homedir rsadecrypt semvercmp timeadd timestamp unixtimestampparse uuidv4 uuidv5 log"
    " sethaselement setsymmetricdifference chunklist".split()
)
_VERB = re.compile(r"%(%|([-+ 0#]*)(\d+)?(?:\.(\d+))?([vsdqtfxX]))")
_UNSAFE = re.compile(r"[^a-zA-Z0-9_-]")


def call_builtin(name: str, arguments: Sequence[Any]) -> Any:
    """The result of bake's function `name`.

    Raises:
        BakeError: it is not known, or refuses its arguments.
        LaminaError: kind UNSUPPORTED: buildx has it and lamina does not.
    """
    function = _FUNCTIONS.get(name)
    if function is None:
        if name in REFUSED:
            raise LaminaError(
                f"function {name} of bake files is not supported", kind=Kind.UNSUPPORTED
            )
        raise BakeError(f"undefined function {name}")
    try:
        return function(*arguments)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, re.error) as error:
        raise BakeError(f"function {name}: {error}") from error


def _format(text: str, *values: Any) -> str:
    """Go's fmt verbs, as far as texts and numbers need them."""
    left = list(values)

    def verb(found: re.Match[str]) -> str:
        if found[1] == "%":
            return "%"
        if not left:
            raise BakeError("format: not enough arguments")
        value = left.pop(0)
        flags, width, precision, letter = found[2], found[3] or "", found[4], found[5]
        if letter in "dxX":
            return f"%{flags}{width}{letter}" % int(to_number(value))
        if letter == "f":
            return f"%{flags}{width}.{precision or 6}f" % float(to_number(value))
        shown = value if isinstance(value, list | dict) else None
        body = json.dumps(shown) if shown is not None else to_text(value)
        if letter == "q":
            body = json.dumps(body, ensure_ascii=False)
        return f"%{flags.replace('0', '')}{width}s" % body

    result = _VERB.sub(verb, text)
    if left:
        raise BakeError("format: too many arguments")
    return result


def _format_list(text: str, *values: Any) -> list[str]:
    lengths = {len(value) for value in values if isinstance(value, list)}
    if len(lengths) > 1:
        raise BakeError("formatlist: the lists have different lengths")
    count = lengths.pop() if lengths else 1
    return [
        _format(text, *(value[n] if isinstance(value, list) else value for value in values))
        for n in range(count)
    ]


def _regex_replace(text: str, pattern: str, replacement: str) -> str:
    python = re.sub(r"\$\{(\w+)\}|\$(\w+)", r"\\g<\1\2>", replacement.replace("\\", "\\\\"))
    return re.sub(pattern, python, text)


def _regex(pattern: str, text: str) -> Any:
    found = re.search(pattern, text)
    if found is None:
        raise BakeError("regex: the pattern does not match")
    return _groups(found)


def _groups(found: re.Match[str]) -> Any:
    if found.groupdict():
        return dict(found.groupdict())
    return list(found.groups()) if found.groups() else found[0]


def _range(*numbers: Any) -> list[Any]:
    values = [to_number(number) for number in numbers]
    start, end, step = 0.0, 0.0, 0.0
    if len(values) == 1:
        end = values[0]
    else:
        start, end = values[:2]
    step = values[2] if len(values) == 3 else (1 if start <= end else -1)
    if not step or abs((end - start) / step) > 1024:
        raise BakeError("range: more than 1024 elements")
    found: list[Any] = []
    value = start
    while value < end if step > 0 else value > end:
        found.append(to_number(value))
        value += step
    return found


def _merge(*objects: Any) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for each in objects:
        merged.update(each or {})
    return merged


def _flatten(value: list[Any]) -> list[Any]:
    flat: list[Any] = []
    for each in value:
        flat += _flatten(each) if isinstance(each, list) else [each]
    return flat


def _distinct(value: list[Any]) -> list[Any]:
    found: list[Any] = []
    for each in value:
        if each not in found:
            found.append(each)
    return found


def _coalesce(*values: Any) -> Any:
    for value in values:
        if value is not None:
            return value
    raise BakeError("coalesce: every argument is null")


def _index_of(values: list[Any], wanted: Any) -> int:
    if wanted not in values:
        raise BakeError("item not found")
    return values.index(wanted)


def _lookup(values: dict[str, Any], key: str, default: Any = None) -> Any:
    if key not in values and default is None:
        raise BakeError(f"lookup: there is no key {key!r}")
    return values.get(key, default)


def _element(values: list[Any], index: Any) -> Any:
    return values[int(to_number(index)) % len(values)]


def _slice(values: list[Any], start: Any, end: Any = None) -> list[Any]:
    first, last = int(to_number(start)), len(values) if end is None else int(to_number(end))
    if not 0 <= first <= last <= len(values):
        raise BakeError("slice: out of range")
    return values[first:last]


def _substring(text: str, offset: Any, length: Any) -> str:
    start, count = int(to_number(offset)), int(to_number(length))
    start = start + len(text) if start < 0 else start
    return text[start:] if count < 0 else text[start : start + count]


def _indent(spaces: Any, text: str) -> str:
    return text.replace("\n", "\n" + " " * int(to_number(spaces)))


def _has_index(values: Any, key: Any) -> bool:
    try:
        get(values, key)
    except BakeError:
        return False
    return True


def _set_product(*lists: list[Any]) -> list[list[Any]]:
    return [list(each) for each in itertools.product(*lists)]


def _hash(name: str) -> Callable[[str], str]:
    def digest(text: str) -> str:
        return hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest()

    return digest


def _url_encode(text: str) -> str:
    return quote_plus(text)


def _order(test: Callable[[float, float], bool]) -> Callable[[Any, Any], bool]:
    return lambda left, right: test(to_number(left), to_number(right))


def _divide(left: Any, right: Any) -> Any:
    if not to_number(right):
        raise BakeError("division by zero")
    return to_number(to_number(left) / to_number(right))


def _length(value: Any) -> int:
    if isinstance(value, list | dict):
        return len(value)
    raise BakeError("length: a list or an object is needed (strlen is for texts)")


def _parse_int(text: str, base: Any = 10) -> int:
    return int(text, int(to_number(base)))


def _json_encode(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "absolute": lambda a: abs(to_number(a)),
    "add": lambda a, b: to_number(to_number(a) + to_number(b)),
    "and": lambda a, b: a and b,
    "base64decode": lambda a: base64.b64decode(a, validate=True).decode(),
    "base64encode": lambda a: base64.b64encode(a.encode()).decode(),
    "basename": lambda a: posixpath.basename(a.rstrip("/")) or ("/" if a else "."),
    "byteslen": lambda a: len(a.encode()),
    "ceil": lambda a: math.ceil(to_number(a)),
    "chomp": lambda a: a.rstrip("\r\n"),
    "coalesce": _coalesce,
    "coalescelist": lambda *lists: next(each for each in lists if each),
    "compact": lambda a: [each for each in a if each],
    "concat": lambda *lists: [item for each in lists for item in each],
    "contains": lambda a, b: b in a,
    "dirname": lambda a: posixpath.normpath(posixpath.dirname(a) or "."),
    "distinct": _distinct,
    "divide": _divide,
    "element": _element,
    "equal": lambda a, b: type(a) is type(b) and a == b,
    "flatten": _flatten,
    "floor": lambda a: math.floor(to_number(a)),
    "format": _format,
    "formatlist": _format_list,
    "greaterthan": _order(lambda a, b: a > b),
    "greaterthanorequalto": _order(lambda a, b: a >= b),
    "hasindex": _has_index,
    "indent": _indent,
    "index": get,
    "indexof": _index_of,
    "int": lambda a: int(to_number(a)),
    "join": lambda separator, *lists: separator.join(to_text(i) for each in lists for i in each),
    "jsondecode": json.loads,
    "jsonencode": _json_encode,
    "keys": sorted,
    "length": _length,
    "lessthan": _order(lambda a, b: a < b),
    "lessthanorequalto": _order(lambda a, b: a <= b),
    "lookup": _lookup,
    "lower": lambda a: a.lower(),
    "max": lambda *a: max(to_number(each) for each in a),
    "md5": _hash("md5"),
    "merge": _merge,
    "min": lambda *a: min(to_number(each) for each in a),
    "modulo": lambda a, b: to_number(math.fmod(to_number(a), to_number(b))),
    "multiply": lambda a, b: to_number(to_number(a) * to_number(b)),
    "negate": lambda a: -to_number(a),
    "not": lambda a: not a,
    "notequal": lambda a, b: not (type(a) is type(b) and a == b),
    "or": lambda a, b: a or b,
    "parseint": _parse_int,
    "pow": lambda a, b: to_number(to_number(a) ** to_number(b)),
    "range": _range,
    "regex": _regex,
    "regex_replace": _regex_replace,
    "regexall": lambda pattern, text: [_groups(found) for found in re.finditer(pattern, text)],
    "replace": lambda text, old, new: text.replace(old, new),
    "reverse": lambda a: a[::-1],
    "reverselist": lambda a: a[::-1],
    "sanitize": lambda a: _UNSAFE.sub("_", a),
    "setintersection": lambda a, *more: [x for x in _distinct(a) if all(x in m for m in more)],
    "setproduct": _set_product,
    "setsubtract": lambda a, b: [each for each in _distinct(a) if each not in b],
    "setunion": lambda *lists: _distinct([item for each in lists for item in each]),
    "sha1": _hash("sha1"),
    "sha256": _hash("sha256"),
    "sha512": _hash("sha512"),
    "signum": lambda a: (to_number(a) > 0) - (to_number(a) < 0),
    "slice": _slice,
    "sort": sorted,
    "split": lambda separator, text: text.split(separator),
    "strlen": len,
    "substr": _substring,
    "subtract": lambda a, b: to_number(to_number(a) - to_number(b)),
    "title": lambda a: re.sub(r"\b[a-z]", lambda found: found[0].upper(), a),
    "trim": lambda text, letters: text.strip(letters),
    "trimprefix": lambda text, prefix: text.removeprefix(prefix),
    "trimspace": lambda text: text.strip(),
    "trimsuffix": lambda text, suffix: text.removesuffix(suffix),
    "upper": lambda a: a.upper(),
    "urlencode": _url_encode,
    "values": lambda a: [a[key] for key in sorted(a)],
    "zipmap": lambda names, values: dict(zip(names, values, strict=True)),
}
