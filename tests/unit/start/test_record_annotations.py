# SPDX-License-Identifier: Apache-2.0
"""Records of a module without `from __future__ import annotations`: lazy ones on Python 3.14."""

import sys
from typing import TYPE_CHECKING, ClassVar

import pytest

from lamina.start.record import Record, fields

if TYPE_CHECKING:
    from decimal import Decimal


class Point(Record):
    x: int
    y: int = 0
    LIMIT: ClassVar[int] = 5


class Named(Point):
    name: str = "origin"
    above: "Named | None" = None


class Undefined(Record):
    amount: "Decimal"
    unit: str = "EUR"


def test_fields_are_the_annotated_names() -> None:
    assert fields(Point) == ("x", "y")
    assert fields(Named) == ("x", "y", "name", "above")
    assert Named(1, 2, "a", Named(3)) == Named(x=1, y=2, name="a", above=Named(3))
    assert Point.LIMIT == 5


def test_fields_may_be_of_a_type_that_only_the_type_checker_knows() -> None:
    class Later(Record):
        one: "int"
        other: int = 2

    assert fields(Undefined) == ("amount", "unit")
    assert fields(Later) == ("one", "other")


def test_a_name_defined_later_is_an_error_only_where_python_looks_at_once() -> None:
    scope: dict[str, type[object]] = {"Record": Record}
    code = "class Early(Record):\n    later: Later\n    sure: int = 1\n"
    if sys.version_info >= (3, 14):
        exec(code, scope)
        assert fields(scope["Early"]) == ("later", "sure")
    else:
        with pytest.raises(NameError):
            exec(code, scope)
