# SPDX-License-Identifier: Apache-2.0
"""Vertices that ignore the cache, and what stands on them."""

from __future__ import annotations

from lamina.events import Outcome
from lamina.plan.graph import Edge, Plan, VertexMeta, merged, vertex
from lamina.plan.ops import Exec
from lamina.solver.scheduler import Found, Lookup, Missed, Ran, Run, Scheduler
from lamina.spec.digest import DiffID, Digest, Stack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.plan.graph import Vertex


def step(name: str, below: Vertex | None = None, *, ignore_cache: bool = False) -> Vertex:
    meta = VertexMeta(name, ignore_cache=ignore_cache)
    edge = Edge(below.digest) if below is not None else None
    return vertex(Exec((name,), (), "/"), (edge,), meta=meta)


def layer(text: str) -> DiffID:
    return DiffID(Digest.of(text.encode()))


def solve(plan: Plan, cache: dict[Digest, Stack], results: dict[str, str]) -> dict[str, Outcome]:
    """Run the plan on a cache (key -> result), which it fills; `results` names new layers."""
    scheduler = Scheduler(plan)
    for edge in plan.outputs:
        scheduler.request(edge)
    while not scheduler.is_done:
        for action in scheduler.pending():
            digest = action.vertex.digest
            if isinstance(action, Lookup):
                keys = action.keys[1:] if digest in scheduler.unsure else action.keys
                hit = next((cache[k.digest] for k in keys if k.digest in cache), None)
                scheduler.feed(Missed(digest) if hit is None else Found(digest, hit))
            elif isinstance(action, Run):
                below = action.inputs[0] or ()
                name = action.vertex.meta.name
                result = (*below, layer(results.get(name, name)))
                cache.update((key.digest, result) for key in action.keys)
                scheduler.feed(Ran(digest, result))
    ends = scheduler.results()
    return {v.meta.name: ends[v.digest][0] for v in plan.vertices}


def chain(*, ignoring: str = "") -> Plan:
    a = step("a", ignore_cache=ignoring == "a")
    b = step("b", a, ignore_cache=ignoring == "b")
    c = step("c", b, ignore_cache=ignoring == "c")
    return Plan((a, b, c), (Edge(c.digest),))


def test_step_that_ignores_the_cache_runs_though_all_is_cached() -> None:
    cache: dict[Digest, Stack] = {}
    solve(chain(), cache, {})
    assert set(solve(chain(), cache, {}).values()) == {Outcome.CACHED}
    again = solve(chain(ignoring="b"), cache, {})
    assert again == {"a": Outcome.CACHED, "b": Outcome.RAN, "c": Outcome.CACHED}


def test_what_stands_on_it_runs_if_its_result_changed() -> None:
    cache: dict[Digest, Stack] = {}
    solve(chain(), cache, {})
    again = solve(chain(ignoring="b"), cache, {"b": "other"})
    assert again == {"a": Outcome.CACHED, "b": Outcome.RAN, "c": Outcome.RAN}


def test_merged_plans_hold_equal_vertices_once_and_keep_what_either_asks_for() -> None:
    shared = step("a")
    first = Plan((shared, step("b", shared)), (Edge(step("b", shared).digest),))
    again = step("a", ignore_cache=True)
    second = Plan((again, step("c", again)), (Edge(step("c", again).digest),))
    plan = merged([first, second])
    assert [v.meta.name for v in plan.vertices] == ["a", "b", "c"]
    assert plan.vertices[0].meta.ignore_cache
    assert plan.outputs == (*first.outputs, *second.outputs)
