# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from lamina.errors import Cancelled, Kind, LaminaError
from lamina.events import Event, Outcome, VertexDone, VertexPlanned, VertexStarted
from lamina.plan.graph import Edge, Plan, Vertex, VertexMeta, needed, vertex
from lamina.plan.ops import CopyAction, Exec, FileOp, ImageSource, Op
from lamina.solver.driver import Counts, Driver, Made
from lamina.solver.scheduler import Scheduler
from lamina.spec.digest import DiffID, Digest, Stack
from lamina.tasks import CancelToken, Work

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.solver.keys import Key

BASE = DiffID(Digest.of(b"base"))


def make(name: str, op: Op, *inputs: Vertex | None) -> Vertex:
    edges = [Edge(i.digest) if i is not None else None for i in inputs]
    return vertex(op, edges, meta=VertexMeta(name))


IMAGE = make("image", ImageSource("x", Digest.of(b"m"), (BASE,), "linux/amd64"))


def stages(count: int) -> tuple[Plan, list[Vertex]]:
    """`count` independent RUNs, and a step that copies from all of them."""
    made = [make(f"stage{n}", Exec((str(n),), (), "/"), IMAGE) for n in range(count)]
    actions = tuple(CopyAction(n + 1, ("f",), f"/{n}") for n in range(count))
    target = make("target", FileOp(actions), IMAGE, *made)
    return needed([IMAGE, *made, target], [Edge(target.digest)]), made


class FakeWorker:
    """`during` is called inside each run with the vertex's name."""

    def __init__(self, during: Callable[[str, CancelToken], object] = lambda *_: None) -> None:
        self.during = during
        self.records: dict[Digest, Stack] = {}
        self.threads: set[str] = set()
        self.prepared = 0
        self.others = threading.active_count()

    def select(
        self,
        vertex: Vertex,
        positions: tuple[int, ...],
        inputs: tuple[Stack | None, ...],
        *,
        is_probe: bool,
    ) -> tuple[tuple[int, Digest], ...]:
        return tuple((p, Digest.of(repr((inputs, p)).encode())) for p in positions)

    def prepare(self, *, executes: bool) -> None:
        assert threading.active_count() == self.others
        self.prepared += 1

    def look_up(self, vertex: Vertex, keys: tuple[Key, ...]) -> Stack | None:
        return next((self.records[k.digest] for k in keys if k.digest in self.records), None)

    def run(
        self,
        vertex: Vertex,
        keys: tuple[Key, ...],
        inputs: tuple[Stack | None, ...],
        cancel: CancelToken,
    ) -> Made:
        self.threads.add(threading.current_thread().name)
        self.during(vertex.meta.name, cancel)
        result = (*(inputs[0] or ()), DiffID(Digest.of(vertex.meta.name.encode())))
        self.records.update({key.digest: result for key in keys})
        return Made(result)


class Drive:
    """One drive of a plan, with its events."""

    def __init__(self, plan: Plan, worker: FakeWorker) -> None:
        self.plan = plan
        self.worker = worker
        self.events: list[Event] = []
        self.lock = threading.Lock()

    def emit(self, event: Event) -> None:
        with self.lock:
            self.events.append(event)

    def __call__(self, *, jobs: int | None = None, cancel: CancelToken | None = None) -> Counts:
        scheduler = Scheduler(self.plan)
        for edge in self.plan.outputs:
            scheduler.request(edge)
        driver = Driver(
            scheduler,
            self.worker,
            plan=self.plan,
            jobs=jobs,
            work=Work(emit=self.emit, cancel=cancel or CancelToken(), clock=lambda: 1.0),
        )
        return driver.drive()

    def outcomes(self) -> dict[str, Outcome]:
        names = {v.digest: v.meta.name for v in self.plan.vertices}
        done = [event for event in self.events if isinstance(event, VertexDone)]
        assert len(done) == len(names), "one final event for each vertex"
        return {names[event.vertex]: event.outcome for event in done}


def test_independent_stages_run_at_the_same_time() -> None:
    plan, _ = stages(4)
    barrier = threading.Barrier(4, timeout=10)
    drive = Drive(
        plan, FakeWorker(lambda name, _: barrier.wait() if name.startswith("stage") else None)
    )
    assert drive() == Counts(ran=5, cached=0)
    assert set(drive.outcomes().values()) == {Outcome.RAN, Outcome.CACHED}


def test_jobs_limits_the_steps_at_one_time() -> None:
    plan, _ = stages(6)
    running: list[str] = []
    most: list[int] = []

    def during(name: str, _cancel: CancelToken) -> None:
        running.append(name)
        most.append(len(running))
        running.remove(name)

    drive = Drive(plan, FakeWorker(during))
    assert drive(jobs=1).ran == 7
    assert max(most) == 1


def test_second_drive_is_all_cached_and_starts_no_thread() -> None:
    plan, _ = stages(3)
    worker = FakeWorker()
    Drive(plan, worker)()
    worker.threads.clear()
    again = Drive(plan, worker)
    assert again() == Counts(ran=0, cached=4)
    assert worker.threads == set()
    assert worker.prepared == 1
    assert set(again.outcomes().values()) == {Outcome.CACHED}
    assert not any(isinstance(event, VertexStarted) for event in again.events)


def test_a_lone_step_runs_in_the_callers_thread() -> None:
    step = make("step", Exec(("x",), (), "/"), IMAGE)
    worker = FakeWorker()
    Drive(needed([IMAGE, step], [Edge(step.digest)]), worker)()
    assert worker.threads == {threading.current_thread().name}


def test_first_failure_cancels_the_siblings_and_keeps_what_ran() -> None:
    plan, _ = stages(3)
    ended = threading.Event()

    def during(name: str, cancel: CancelToken) -> None:
        if name == "stage0":
            ended.set()
            return
        if name == "stage1":
            assert ended.wait(10)
            raise LaminaError("it broke", kind=Kind.STEP_FAILED)
        assert cancel.wait(10), "never cancelled"
        raise Cancelled

    worker = FakeWorker(during)
    drive = Drive(plan, worker)
    with pytest.raises(LaminaError, match="it broke"):
        drive()
    outcomes = drive.outcomes()
    assert outcomes["stage1"] is Outcome.FAILED
    assert outcomes["stage2"] is outcomes["target"] is Outcome.CANCELLED
    assert len(worker.records) == 1
    errors = [e.error for e in drive.events if isinstance(e, VertexDone) and e.error]
    assert errors == ["it broke"]


def test_cancelled_from_outside_ends_every_vertex() -> None:
    plan, _ = stages(2)
    token = CancelToken()

    def during(_name: str, cancel: CancelToken) -> None:
        token.cancel()
        assert cancel.wait(10)
        raise Cancelled

    drive = Drive(plan, FakeWorker(during))
    with pytest.raises(Cancelled):
        drive(cancel=token)
    outcomes = drive.outcomes()
    assert outcomes.pop("image") is Outcome.CACHED
    assert set(outcomes.values()) == {Outcome.CANCELLED}


def test_a_set_token_stops_before_anything_is_done() -> None:
    plan, _ = stages(2)
    token = CancelToken()
    token.cancel()
    worker = FakeWorker()
    with pytest.raises(Cancelled):
        Drive(plan, worker)(cancel=token)
    assert worker.records == {}


def test_a_bug_in_a_worker_rises_as_it_is() -> None:
    plan, _ = stages(2)

    def during(_name: str, _cancel: CancelToken) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Drive(plan, FakeWorker(during))()


def test_every_vertex_is_announced_in_the_plans_order() -> None:
    plan, _ = stages(2)
    drive = Drive(plan, FakeWorker())
    drive()
    planned = [event for event in drive.events if isinstance(event, VertexPlanned)]
    assert [event.name for event in planned] == ["image", "stage0", "stage1", "target"]
    assert [(event.number, event.total) for event in planned] == [(n, 4) for n in range(1, 5)]
