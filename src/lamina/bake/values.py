# SPDX-License-Identifier: Apache-2.0
"""HCL's values, which are Python's: str, int, float, bool, None, list, dict."""

from __future__ import annotations

import math

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class BakeError(LaminaError):
    kind = Kind.INVALID


def to_text(value: Any) -> str:
    """A value in a template. Raises BakeError for null and collections."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(whole(value))
    kind = "null" if value is None else "a list" if isinstance(value, list) else "an object"
    raise BakeError(f"cannot use {kind} as a text")


def to_number(value: Any) -> int | float:
    """A value as a number; texts are read as one. Raises BakeError."""
    if isinstance(value, bool) or value is None:
        raise BakeError("a number is needed")
    if isinstance(value, int | float):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise BakeError(f"{value!r} is not a number") from None
    if not math.isfinite(number):
        raise BakeError(f"{value!r} is not a number")
    return whole(number)


def whole(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value


def to_boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in {"true", "false"}:
        return bool(value == "true")
    raise BakeError(f"a boolean is needed, not {value!r}")


def to_list(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    raise BakeError(f"a list is needed, not {value!r}")


def operate(operator: str, left: Any, right: Any) -> Any:
    if operator in {"==", "!="}:
        same = type(left) is type(right) or (_is_number(left) and _is_number(right))
        return (same and left == right) == (operator == "==")
    if operator in {"&&", "||"}:
        first, second = to_boolean(left), to_boolean(right)
        return first and second if operator == "&&" else first or second
    a, b = to_number(left), to_number(right)
    if operator in {"/", "%"} and not b:
        raise BakeError("division by zero")
    results: dict[str, Callable[[], Any]] = {
        "+": lambda: whole(a + b),
        "-": lambda: whole(a - b),
        "*": lambda: whole(a * b),
        "/": lambda: whole(a / b),
        "%": lambda: whole(math.fmod(a, b)),
        "<": lambda: a < b,
        ">": lambda: a > b,
        "<=": lambda: a <= b,
        ">=": lambda: a >= b,
    }
    return results[operator]()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def joined(parts: Sequence[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    return "".join(to_text(part) for part in parts)


class Blocks:
    """`target` or `group` in an expression: `target.NAME.ATTRIBUTE`; `get` gives a block's own
    attributes, or raises BakeError.
    """

    def __init__(self, get: Callable[[str], dict[str, Any]]) -> None:
        self.get = get


def get(value: Any, key: Any) -> Any:
    """`value[key]` of a list or an object. Raises BakeError."""
    if isinstance(value, Blocks):
        return value.get(str(key))
    if isinstance(value, dict) and str(key) in value:
        return value[str(key)]
    if isinstance(value, list) and not isinstance(key, str | bool):
        index = int(key)
        if 0 <= index < len(value):
            return value[index]
    raise BakeError(f"there is no element {key!r}")
