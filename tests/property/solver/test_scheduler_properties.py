# SPDX-License-Identifier: Apache-2.0
"""Random graphs, random outcomes in random order: the result and the states must not depend on it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina.events import Outcome
from lamina.plan.graph import Edge, Plan, Vertex, VertexMeta, needed, vertex
from lamina.plan.ops import CopyAction, Exec, FileOp, ImageSource, LocalSource, Op
from lamina.solver.scheduler import (
    Action,
    Failed,
    Fed,
    Found,
    Lookup,
    Missed,
    Ran,
    Run,
    Scheduler,
    Select,
    Selected,
)
from lamina.spec.digest import DiffID, Digest, Stack

BASE = DiffID(Digest.of(b"base"))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    made: list[Vertex] = [
        _vertex(ImageSource("docker.io/library/a:latest", Digest.of(b"m"), (BASE,), "linux/amd64")),
        _vertex(LocalSource("context")),
    ]
    for number in range(draw(st.integers(1, 8))):
        stages = [v for v in made if not isinstance(v.op, LocalSource)]
        base = draw(st.sampled_from([None, *stages]))
        if draw(st.booleans()):
            op: Op = Exec((f"run{draw(st.integers(0, 3))}",), (), "/")
            made.append(_vertex(op, base))
        else:
            source = draw(st.sampled_from(made))
            op = FileOp((CopyAction(1, (f"p{draw(st.integers(0, 2))}",), f"/d{number}"),))
            made.append(_vertex(op, base, source))
    targets = draw(st.lists(st.sampled_from(made[2:]), min_size=1, max_size=2))
    return needed(made, [Edge(v.digest) for v in targets])


def _vertex(op: Op, *inputs: Vertex | None) -> Vertex:
    edges = [Edge(i.digest) if i is not None else None for i in inputs]
    return vertex(op, edges, meta=VertexMeta("x"))


class World:
    """A store and an executor that are pure functions: what a key gives is what it would run to."""

    def __init__(self, cached: frozenset[int] = frozenset(), fails: int | None = None) -> None:
        self.records: dict[Digest, Stack] = {}
        self.cached = cached
        self.fails = fails
        self.runs: list[Digest] = []

    def perform(self, action: Action) -> Fed:
        vertex = action.vertex
        if isinstance(action, Select):
            return Selected(
                vertex.digest,
                tuple((p, Digest.of(repr((vertex.op, p)).encode())) for p in action.wanted),
            )
        if isinstance(action, Lookup):
            for key in action.keys:
                if key.digest in self.records:
                    return Found(vertex.digest, self.records[key.digest])
            return Missed(vertex.digest)
        assert isinstance(action, Run)
        if self.fails == len(self.runs):
            return Failed(vertex.digest)
        self.runs.append(vertex.digest)
        base = action.inputs[0] or ()
        content = repr((vertex.op, action.inputs)).encode()
        result = (*base, DiffID(Digest.of(content)))
        for key in action.keys:
            self.records[key.digest] = result
        return Ran(vertex.digest, result)


def solve(
    plan: Plan, world: World, choose: st.DataObject | None, *, no_cache: bool = False
) -> tuple[Scheduler, dict[Digest, list[Outcome]]]:
    scheduler = Scheduler(plan, no_cache=no_cache)
    for edge in plan.outputs:
        scheduler.request(edge)
    waiting: list[Action] = []
    states: dict[Digest, list[Outcome]] = {v.digest: [] for v in plan.vertices}
    while True:
        waiting += scheduler.pending()
        for ended, outcome in scheduler.ended():
            states[ended.digest].append(outcome)
        if scheduler.is_done:
            break
        assert waiting, "nothing to do, and not done"
        index = choose.draw(st.integers(0, len(waiting) - 1)) if choose is not None else 0
        scheduler.feed(world.perform(waiting.pop(index)))
    scheduler.stop()
    for ended, outcome in scheduler.ended():
        states[ended.digest].append(outcome)
    return scheduler, states


@given(plans(), st.data(), st.booleans())
def test_result_is_independent_of_completion_order(
    plan: Plan, data: st.DataObject, no_cache: bool
) -> None:
    first, one = solve(plan, World(), None, no_cache=no_cache)
    second, two = solve(plan, World(), data, no_cache=no_cache)
    for edge in plan.outputs:
        assert first.result(edge) == second.result(edge)
    assert set(one) == set(two)


@given(plans(), st.data())
def test_every_vertex_ends_exactly_once(plan: Plan, data: st.DataObject) -> None:
    fails = data.draw(st.one_of(st.none(), st.integers(0, 4)))
    _scheduler, states = solve(plan, World(fails=fails), data)
    assert all(len(outcomes) == 1 for outcomes in states.values())


@given(plans(), st.data())
def test_second_solve_runs_nothing_and_ends_all_as_cached(plan: Plan, data: st.DataObject) -> None:
    world = World()
    first, _ = solve(plan, world, data)
    ran = len(world.runs)
    second, states = solve(plan, world, data)
    assert len(world.runs) == ran
    assert all(outcomes == [Outcome.CACHED] for outcomes in states.values())
    assert [first.result(e) for e in plan.outputs] == [second.result(e) for e in plan.outputs]


@given(plans(), st.data())
def test_nothing_is_proposed_after_a_failure(plan: Plan, data: st.DataObject) -> None:
    world = World(fails=0)
    scheduler, states = solve(plan, world, data)
    assert scheduler.pending() == ()
    assert world.runs == []
    assert sum(outcomes == [Outcome.FAILED] for outcomes in states.values()) == 1


@given(plans(), st.data())
def test_no_vertex_runs_twice_for_one_key(plan: Plan, data: st.DataObject) -> None:
    world = World()
    solve(plan, world, data, no_cache=True)
    assert len(world.runs) == len(set(world.runs))
