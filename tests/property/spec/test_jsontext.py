# SPDX-License-Identifier: Apache-2.0
"""`lamina.start.jsontext` is the standard `json`."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.start.jsontext import dumps, loads

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(values, st.booleans())
def test_written_as_json_writes(value: object, ascii_only: bool) -> None:
    assert dumps(value) == json.dumps(value)
    compact = (",", ":")
    assert dumps(value, separators=compact, ensure_ascii=ascii_only) == json.dumps(
        value, separators=compact, ensure_ascii=ascii_only
    )


def outcome(read: Any, text: str | bytes, **options: Any) -> object:
    try:
        found = read(text, **options)
    except ValueError as error:
        return type(error), str(error)
    return repr(found)


pieces = st.sampled_from(
    [
        *"{}[],: \t\n\r\"'\\0123-+.eE",
        "true",
        "null",
        "NaN",
        "Infinity",
        '"a"',
        "\ufeff",
        "\x00",
        "\xa0",
    ]
)


@given(st.lists(pieces, max_size=12).map("".join))
def test_read_or_refused_as_json_does(text: str) -> None:
    assert outcome(loads, text) == outcome(json.loads, text)
    assert outcome(loads, text.encode()) == outcome(json.loads, text.encode())


@given(values)
def test_read_with_the_callers_numbers(value: object) -> None:
    def refuse(name: str) -> object:
        raise ValueError(name)

    text = json.dumps(value)
    options = {"parse_float": str, "parse_constant": refuse}
    assert outcome(loads, text, **options) == outcome(json.loads, text, **options)


@pytest.mark.parametrize("value", [{1: 2}, {(1,): 2}, {1, 2}, object(), b"x", [math.nan]])
def test_odd_values_are_treated_as_json_treats_them(value: object) -> None:
    def written(write: Any) -> object:
        try:
            return write(value)
        except TypeError as error:
            return str(error)

    assert written(dumps) == written(json.dumps)


def test_a_circle_and_a_deep_text_are_errors() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(ValueError, match="Circular"):
        dumps(circle)
    with pytest.raises(RecursionError):
        loads("[" * 100_000)


@pytest.mark.parametrize("text", ["[[]x].txt", '["a" x', '["a', '{"a" 1}', "[1, 2"])
def test_refused_where_nothing_has_imported_json(text: str) -> None:
    code = (
        "import sys\nfrom lamina.start.jsontext import loads\nassert 'json' not in sys.modules\n"
        "try:\n    loads(sys.argv[1])\nexcept ValueError as error:\n    print(error, end='')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, text], capture_output=True, text=True, check=True
    )
    with pytest.raises(ValueError, match="line 1") as refused:
        json.loads(text)
    assert done.stdout == str(refused.value)
