# SPDX-License-Identifier: Apache-2.0
"""`Enumeration` behaves as `enum.Enum` where lamina uses it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from lamina.errors import Kind
from lamina.start.enumeration import Enumeration


def test_members_are_found_by_name_and_value_and_iterate_in_order() -> None:
    assert Kind("usage") is Kind.USAGE is Kind["USAGE"]
    assert Kind(Kind.USAGE) is Kind.USAGE
    assert [kind.name for kind in Kind][:2] == ["USAGE", "INVALID"]
    assert len(Kind) == len({kind.value for kind in Kind})
    assert repr(Kind.USAGE) == "<Kind.USAGE: 'usage'>"
    assert f"{Kind.USAGE}" == "Kind.USAGE"


def test_unknown_values_are_refused() -> None:
    odds: tuple[object, ...] = ("nothing", [], None)
    for odd in odds:
        with pytest.raises(ValueError, match="is not a valid Kind"):
            Kind(odd)


def test_members_are_one_object_and_closed() -> None:
    assert pickle.loads(pickle.dumps(Kind.USAGE)) is Kind.USAGE
    assert copy.deepcopy(Kind.USAGE) is copy.copy(Kind.USAGE) is Kind.USAGE
    member: Any = Kind.USAGE
    with pytest.raises(AttributeError):
        member.value = "x"
    closed: Any = Kind
    with pytest.raises(AttributeError):
        closed.OTHER = "x"


def test_methods_are_no_members() -> None:
    class Size(Enumeration):
        SMALL = 1
        LARGE = 2

        @property
        def is_large(self) -> bool:
            return self is Size.LARGE

    assert [(size.name, size.is_large) for size in Size] == [("SMALL", False), ("LARGE", True)]
