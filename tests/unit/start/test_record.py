# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import pickle
import threading

import pytest

from lamina.start.record import Record, fields, replace


class Point(Record):
    x: int
    y: int = 0


class Named(Point):
    name: str = "origin"

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a point needs a name")


def test_equal_values_are_equal_and_hash_alike() -> None:
    assert Point(1) == Point(1, 0)
    assert hash(Point(1)) == hash(Point(1, 0))
    assert Point(1) != Point(2)


def test_subclass_is_another_value() -> None:
    assert Point(1) != Named(1)
    assert fields(Named) == ("x", "y", "name")


def test_record_is_immutable_and_has_no_dict() -> None:
    point = Point(1)
    with pytest.raises(AttributeError, match="immutable"):
        point.x = 2  # type: ignore[misc]  # that it fails is the test
    assert not hasattr(point, "__dict__")


def test_replace_checks_again() -> None:
    assert replace(Named(1), y=3) == Named(1, 3)
    with pytest.raises(ValueError, match="name"):
        replace(Named(1), name="")


def test_copies_and_pickles_are_equal() -> None:
    named = Named(1, 2, "a")
    assert copy.deepcopy(named) == named
    assert pickle.loads(pickle.dumps(named)) == named  # our own bytes


def test_match_takes_fields_by_position() -> None:
    match Point(1, 2):
        case Point(x, 2):
            assert x == 1
        case _:
            pytest.fail("did not match")


def test_repr_names_the_fields() -> None:
    assert repr(Named(1)) == "Named(x=1, y=0, name='origin')"


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(TypeError):
        Point()  # type: ignore[call-arg]  # that it fails is the test


@pytest.mark.parametrize("compiled_by_instances", [0, 100])
@pytest.mark.parametrize("arguments", [{"a": 1, "b": 2}, {"a": 1}])
def test_a_call_that_another_thread_overtook_makes_the_same_value(
    compiled_by_instances: int, arguments: dict[str, int]
) -> None:
    class Base(Record):
        a: int

    class Derived(Base):
        b: int = 5

    # what a thread holds that looked `__init__` up and was stopped before the call
    looked_up = Derived.__init__
    for number in range(compiled_by_instances):
        Derived(number)
    overtaken = Derived.__new__(Derived)
    looked_up(overtaken, **arguments)
    assert overtaken == Derived(**arguments)
    assert Base(1) == Base(a=1)


def test_many_threads_may_make_the_first_instance() -> None:
    for _ in range(50):

        class Fresh(Record):
            a: int
            b: int = 2

        found: list[object] = []
        start = threading.Barrier(4)

        def make(start: threading.Barrier = start, found: list[object] = found) -> None:
            start.wait()
            found.append(Fresh(1))  # joined before the next round

        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [Fresh(1)] * 4
