# SPDX-License-Identifier: Apache-2.0
"""What work is done with: cancellation and structured threads.

`Work` goes down through every function that takes its time. A `CancelToken` is asked often and waited on rarely; `TaskGroup` runs functions in threads, cancels
the siblings of the first that fails, and returns only when all have ended.
"""

from __future__ import annotations

from lamina.errors import Cancelled
from lamina.start.lowlevel import allocate_lock
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from lamina.events import Emitter


class CancelToken:
    """Set once, never unset. A child is cancelled with its parent, not the other way round."""

    def __init__(self, parent: CancelToken | None = None) -> None:
        # a plain flag and a gate that is shut until then: `threading` costs 1 ms of each start
        self._is_set = False
        self._gate = allocate_lock()
        self._gate.acquire()
        self._lock = allocate_lock()
        self._callbacks: list[Callable[[], None]] = []
        if parent is not None:
            parent.on_cancel(self.cancel)

    def cancel(self) -> None:
        """Ask everything that holds this token to stop. Idempotent; runs the callbacks."""
        with self._lock:
            if not self._is_set:
                self._is_set = True
                self._gate.release()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._is_set

    def check(self) -> None:
        """Raise Cancelled if the token is set."""
        if self._is_set:
            raise Cancelled

    def wait(self, timeout: float) -> bool:
        """Sleep up to `timeout` seconds; True as soon as the token is set."""
        if self._gate.acquire(timeout=max(timeout, 0)):
            self._gate.release()  # for the next one that waits
        return self._is_set

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when cancelled (at once if it is), from the cancelling thread."""
        with self._lock:
            if not self._is_set:
                self._callbacks.append(callback)
                return
        callback()

    def forget(self, callback: Callable[[], None]) -> None:
        """Drop a callback registered with `on_cancel`; no error if it ran already."""
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)


class Work(Record):
    """Whom a piece of work tells what it does, what may stop it, and its clock (seconds since the
    epoch).
    """

    emit: Emitter
    cancel: CancelToken
    clock: Callable[[], float]


class TaskGroup:
    """Threads with one owner. Leaving the `with` block joins them all.

    If a task raises, `token` is cancelled and the first error rises from the `with` block; further
    independent errors are attached to it as an ExceptionGroup only if there are several that are
    not `Cancelled`. If the block itself raises, the tasks are cancelled and joined first.
    """

    def __init__(self, parent: CancelToken | None = None) -> None:
        self.token = CancelToken(parent)
        self._threads: list[threading.Thread] = []
        self._lock = allocate_lock()
        self._errors: list[BaseException] = []

    def start(self, function: Callable[[], object], *, name: str = "task") -> None:
        """Run `function` in a thread of its own."""
        import threading

        thread = threading.Thread(target=self._run, args=(function,), name=name)
        self._threads.append(thread)
        thread.start()

    def _run(self, function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001  # the task boundary: re-raised by the owner
            with self._lock:
                self._errors.append(error)
            self.token.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.token.cancel()
        for thread in self._threads:
            thread.join()
        if error is not None:
            return
        real = [found for found in self._errors if not isinstance(found, Cancelled)]
        if len(real) == 1:
            raise real[0]
        if real:
            raise BaseExceptionGroup("several tasks failed", real)
        if self._errors:
            raise self._errors[0]
