# SPDX-License-Identifier: Apache-2.0
"""Calls in a process of its own: what comes back is what would have come from here."""

from __future__ import annotations

import threading

import pytest

from lamina.app import apart
from lamina.container.console import StartFailed
from lamina.errors import Cancelled, Kind, LaminaError, SourceError
from lamina.events import Event, Notice, Outcome
from lamina.spec.span import SourceText, Span
from lamina.tasks import CancelToken

HERE = "tests_unit_app_apart"
SPAN = Span(SourceText("Dockerfile", ("FROM x",)), 1, 1)


class Awkward(LaminaError):
    def __init__(self, one: int, *, two: list[int]) -> None:
        super().__init__(f"{one} {two}", kind=Kind.EXHAUSTED)
        self.two = two


ERRORS = {
    "lamina": LaminaError("what", kind=Kind.CONFLICT, hint="do"),
    "source": SourceError("bad", span=SPAN, kind=Kind.NOT_FOUND, hint="see"),
    "start": StartFailed(LaminaError("no", kind=Kind.DENIED), 126),
    "awkward": Awkward(1, two=[2]),
    "group": ExceptionGroup("several", [LaminaError("a"), SourceError("b", span=SPAN)]),
    "other": ZeroDivisionError("x"),
    "cancelled": Cancelled(),
}


# --- what the child calls: it finds this module by the path of the test session


def answer(value: object, cancel: CancelToken) -> object:
    return value, cancel.is_cancelled


def fail(name: str, cancel: CancelToken) -> None:
    raise ERRORS[name]


def tell(on_event: object, cancel: CancelToken) -> int:
    assert callable(on_event)
    for number in range(100):
        on_event(Notice(str(number)))
    return 100


def endless(on_event: object, cancel: CancelToken) -> None:
    assert callable(on_event)
    while not cancel.is_cancelled:
        on_event(Notice("x" * 10_000))
    raise Cancelled


def die(cancel: CancelToken) -> None:
    import os

    os._exit(3)


def describe(error: BaseException) -> object:
    members = [describe(each) for each in getattr(error, "exceptions", ())]
    return type(error).__qualname__, str(error), error.args[:1], sorted(error.__dict__), members


def function(name: str) -> str:
    return f"{__name__}:{name}"


def test_values_come_back() -> None:
    value = {"a": (1, b"\xff"), "b": Outcome.CACHED}
    assert apart.call(function("answer"), {"value": value}) == (value, False)


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_errors_come_back_as_they_are(name: str) -> None:
    with pytest.raises(BaseException) as caught:
        apart.call(function("fail"), {"name": name})
    assert describe(caught.value) == describe(ERRORS[name])
    if isinstance(caught.value, LaminaError):
        expected = ERRORS[name]
        assert isinstance(expected, LaminaError)
        assert (caught.value.kind, caught.value.hint) == (expected.kind, expected.hint)
    if isinstance(caught.value, SourceError):
        assert caught.value.span == SPAN


def test_events_come_in_order_in_this_thread() -> None:
    seen: list[tuple[str, int]] = []

    def note(event: Event) -> None:
        assert isinstance(event, Notice)
        seen.append((event.message, threading.get_ident()))

    assert apart.call(function("tell"), {}, on_event=note) == 100
    assert seen == [(str(number), threading.get_ident()) for number in range(100)]


def test_error_of_the_listener_ends_the_work() -> None:
    def note(event: Event) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        apart.call(function("endless"), {}, on_event=note)


def test_cancelling_reaches_the_work() -> None:
    token = CancelToken()

    def note(event: Event) -> None:
        token.cancel()

    with pytest.raises(Cancelled):
        apart.call(function("endless"), {}, on_event=note, cancel=token)
    with pytest.raises(Cancelled):
        apart.call(function("endless"), {}, on_event=note, cancel=token)


def test_death_of_the_process_is_an_error() -> None:
    with pytest.raises(LaminaError, match="died: status 3"):
        apart.call(function("die"), {})


def test_what_cannot_travel_is_named() -> None:
    with pytest.raises(LaminaError, match="cannot be passed"):
        apart.call(function("answer"), {"value": threading.Lock()})
