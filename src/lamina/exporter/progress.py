# SPDX-License-Identifier: Apache-2.0
"""Events of an export: one `Progress` when a piece of work begins and one when it is done."""

from __future__ import annotations

from lamina.events import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from lamina.events import Emitter


class Tell:
    """An emitter with a clock (POSIX seconds)."""

    def __init__(self, emit: Emitter, clock: Callable[[], float]) -> None:
        self.emit = emit
        self.clock = clock

    def task(self, id: str, name: str) -> Task:
        """Tell, in a `with` block, that the work named `name` runs, and that it is done."""
        return Task(self, id, name)


class Task:
    """One piece of work; set `size` to its bytes before it ends. A failed one is not told done."""

    def __init__(self, tell: Tell, id: str, name: str) -> None:
        self._tell = tell
        self._id = id
        self._name = name
        self.size = 0

    def __enter__(self) -> Self:
        self._tell.emit(Progress(self._id, self._name, 0, None, self._tell.clock()))
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            at = self._tell.clock()
            self._tell.emit(Progress(self._id, self._name, self.size, self.size, at, done=True))
