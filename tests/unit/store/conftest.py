# SPDX-License-Identifier: Apache-2.0
"""A store with a clock that tests move."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lamina.events import Event, Notice
from lamina.store import LocalStore, open_store


class Clock:
    """POSIX seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Notices:
    """An emitter that keeps the messages of notices."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, Notice):
            self.messages.append(event.message)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def notices() -> Notices:
    return Notices()


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def open_again(root: str, clock: Clock, notices: Notices) -> Iterator[Callable[[], LocalStore]]:
    """Opens the root as another process would; closes everything at the end."""
    opened: list[LocalStore] = []

    def again() -> LocalStore:
        opened.append(open_store(root, clock=clock, emit=notices))
        return opened[-1]

    yield again
    for store in opened:
        store.close()


@pytest.fixture
def store(open_again: Callable[[], LocalStore]) -> LocalStore:
    return open_again()
