# SPDX-License-Identifier: Apache-2.0
"""Events of an export: one `Progress` when a piece of work begins and one when it is done."""

from __future__ import annotations

from lamina.events import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from lamina.tasks import Work


class Told:
    """A `with` block that tells that `name` runs, and that it is done unless it failed. Set `size`
    to its bytes before it ends.
    """

    def __init__(self, work: Work, id: str, name: str) -> None:
        self._work = work
        self._id = id
        self._name = name
        self.size = 0

    def __enter__(self) -> Self:
        self._work.emit(Progress(self._id, self._name, 0, None, self._work.clock()))
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            at = self._work.clock()
            self._work.emit(Progress(self._id, self._name, self.size, self.size, at, done=True))
