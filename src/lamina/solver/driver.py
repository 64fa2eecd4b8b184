# SPDX-License-Identifier: Apache-2.0
"""Carries a scheduler's actions out: quick ones in the caller's thread, slow ones in threads.

Keys are looked up and build contexts hashed in the calling thread. A slow action that has no
company also runs there (nothing else could start before it ends); otherwise each gets a thread.
So a fully cached build imports no threads. The first failure cancels what else is running.
"""

from __future__ import annotations

from lamina.errors import Cancelled, LaminaError
from lamina.events import Outcome, VertexDone, VertexPlanned, VertexStarted
from lamina.plan.ops import LayerOp
from lamina.solver.scheduler import Failed, Found, Lookup, Missed, Ran, Run, Select, Selected
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from lamina.plan.graph import Plan, Vertex
    from lamina.solver.keys import Key
    from lamina.solver.scheduler import Action, Fed, Scheduler
    from lamina.spec.digest import Digest, Stack
    from lamina.tasks import CancelToken, Work
else:
    Protocol = object


class Worker(Protocol):
    """What the driver needs done. `select` for stages and `run` are called from any thread."""

    def select(
        self,
        vertex: Vertex,
        positions: tuple[int, ...],
        inputs: tuple[Stack | None, ...],
        *,
        is_probe: bool,
    ) -> tuple[tuple[int, Digest], ...]:
        """The digest of what each of these uses (`keys.uses`) takes from its input. A commit
        stands for its files unless this `is_probe`.
        """

    def prepare(self, *, executes: bool) -> None:
        """Called once, in the calling thread and before any other thread is started, if anything
        is to be done at all; `executes` if a process may have to run.
        """

    def look_up(self, vertex: Vertex, keys: tuple[Key, ...]) -> Stack | None:
        """The result recorded under the first key that has a usable record; the others (the
        primary key is first) are recorded too.
        """

    def run(
        self,
        vertex: Vertex,
        keys: tuple[Key, ...],
        inputs: tuple[Stack | None, ...],
        cancel: CancelToken,
    ) -> Made:
        """Make the vertex's layer and record the result under all keys."""


class Made(Record):
    """The result of a run; `by_another` if another process made it in the meantime."""

    result: Stack
    by_another: bool = False


class Counts(Record):
    """How many steps (vertices that add a layer) ran and how many were cached."""

    ran: int
    cached: int


class Driver:
    """One solve. `jobs` limits the slow actions at one time (None: no limit)."""

    def __init__(
        self, scheduler: Scheduler, worker: Worker, *, plan: Plan, jobs: int | None, work: Work
    ) -> None:
        self._scheduler = scheduler
        self._worker = worker
        self._plan = plan
        self._jobs = jobs
        self._work = work
        self._ran = 0
        self._cached = 0
        self._reason = ""

    def drive(self) -> Counts:
        """Run until every requested edge has a result; every vertex gets one final event.

        Raises:
            LaminaError: what the first failing action raised.
            Cancelled: the token was set.
        """
        self._announce()
        try:
            slow = self._quick()
            if slow:
                self._worker.prepare(executes=self._scheduler.may_execute())
            while not self._scheduler.is_done:
                assert slow, "the scheduler is neither done nor proposes anything"
                if len(slow) == 1:
                    slow = self._inline(slow[0])
                else:
                    slow = self._threads(slow)
        except BaseException:
            self._scheduler.stop()
            raise
        finally:
            self._report()
        return Counts(self._ran, self._cached)

    def _announce(self) -> None:
        total = len(self._plan.vertices)
        for number, vertex in enumerate(self._plan.vertices, start=1):
            meta = vertex.meta
            self._work.emit(
                VertexPlanned(
                    vertex.digest, meta.name, meta.stage, number, total, self._work.clock()
                )
            )

    def _report(self) -> None:
        for vertex, outcome in self._scheduler.ended():
            if isinstance(vertex.op, LayerOp):
                self._ran += outcome is Outcome.RAN
                self._cached += outcome is Outcome.CACHED
            reason = self._reason if outcome is Outcome.FAILED else ""
            self._work.emit(VertexDone(vertex.digest, outcome, self._work.clock(), reason))

    # Quick actions --------------------------------------------------------------------------

    def _quick(self) -> list[Action]:
        """Carry out what is quick until nothing quick is left; returns what is slow."""
        slow: list[Action] = []
        while True:
            self._check()
            actions = self._scheduler.pending()
            if not actions:
                self._report()
                return slow
            for action in actions:
                if isinstance(action, Lookup) or _is_context(action):
                    self._feed(action, self._perform(action, self._work.cancel))
                else:
                    slow.append(action)

    def _perform(self, action: Action, cancel: CancelToken | None) -> Fed | BaseException:
        """The outcome of an action, or the error that it raised."""
        vertex = action.vertex
        try:
            if isinstance(action, Lookup):
                found = self._worker.look_up(vertex, action.keys)
                return Missed(vertex.digest) if found is None else Found(vertex.digest, found)
            if isinstance(action, Select):
                digests = self._worker.select(
                    vertex, action.wanted, action.inputs, is_probe=action.is_probe
                )
                return Selected(vertex.digest, digests)
            assert cancel is not None
            made = self._worker.run(vertex, action.keys, action.inputs, cancel)
            if made.by_another:
                return Found(vertex.digest, made.result)
            return Ran(vertex.digest, made.result)
        except BaseException as error:  # noqa: BLE001  # a task's boundary: _feed raises it again
            return error

    def _feed(self, action: Action, outcome: Fed | BaseException) -> None:
        if not isinstance(outcome, BaseException):
            self._scheduler.feed(outcome)
            return
        if not isinstance(outcome, Cancelled):
            self._reason = _one_line(outcome)
            self._scheduler.feed(Failed(action.vertex.digest))
        raise outcome

    def _check(self) -> None:
        self._work.cancel.check()

    # Slow actions ---------------------------------------------------------------------------

    def _inline(self, action: Action) -> list[Action]:
        self._started(action)
        self._feed(action, self._perform(action, self._work.cancel))
        return self._quick()

    def _threads(self, slow: list[Action]) -> list[Action]:
        """Run slow actions in threads until at most one is left and none is running."""
        from queue import SimpleQueue

        from lamina.tasks import TaskGroup

        finished: SimpleQueue[tuple[Action, Fed | BaseException]] = SimpleQueue()
        running = 0
        with TaskGroup(self._work.cancel) as group:
            while running or len(slow) > 1:
                while slow and (self._jobs is None or running < self._jobs):
                    action = slow.pop(0)
                    self._started(action)
                    running += 1
                    task = _Task(self, action, finished, group.token)
                    group.start(task, name=action.vertex.meta.name)
                action, outcome = finished.get()
                running -= 1
                self._feed(action, outcome)
                slow += self._quick()
        return slow

    def _started(self, action: Action) -> None:
        if isinstance(action, Run):
            self._work.emit(VertexStarted(action.vertex.digest, self._work.clock()))


class _Task:
    """One slow action in a thread; its outcome goes to the queue, whatever it is."""

    def __init__(
        self,
        driver: Driver,
        action: Action,
        finished: _Queue,
        token: CancelToken,
    ) -> None:
        self._driver = driver
        self._action = action
        self._finished = finished
        self._token = token

    def __call__(self) -> None:
        self._finished.put((self._action, self._driver._perform(self._action, self._token)))


if TYPE_CHECKING:

    class _Queue(Protocol):
        def put(self, item: tuple[Action, Fed | BaseException], /) -> None: ...


def _is_context(action: Action) -> bool:
    """Whether a Select is of a build context: these are asked for before anything has run."""
    return isinstance(action, Select) and not action.is_probe


def _one_line(error: BaseException) -> str:
    text = error.what if isinstance(error, LaminaError) else repr(error)
    return text.split("\n", 1)[0]
