# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from lamina.events import Outcome
from lamina.plan.graph import Edge, Plan, Vertex, VertexMeta, needed, vertex
from lamina.plan.ops import (
    CopyAction,
    Exec,
    FileOp,
    ImageSource,
    LocalSource,
    Merge,
    MkdirAction,
    Op,
)
from lamina.solver.scheduler import (
    Found,
    Lookup,
    Missed,
    Ran,
    Run,
    Scheduler,
    Select,
    Selected,
)
from lamina.spec.digest import DiffID, Digest


def layer(name: str) -> DiffID:
    return DiffID(Digest.of(name.encode()))


def make(op: Op, *inputs: Vertex | None) -> Vertex:
    edges = [Edge(i.digest) if i is not None else None for i in inputs]
    return vertex(op, edges, meta=VertexMeta("x"))


def image(*names: str) -> Vertex:
    diff_ids = tuple(layer(name) for name in names)
    return make(ImageSource("docker.io/library/x:latest", Digest.of(b"m"), diff_ids, "linux/amd64"))


def run(command: str, base: Vertex | None) -> Vertex:
    return make(Exec((command,), (), "/"), base)


def start(target: Vertex, *others: Vertex, no_cache: bool = False) -> tuple[Scheduler, Plan]:
    plan = needed([*others, target], [Edge(target.digest)])
    scheduler = Scheduler(plan, no_cache=no_cache)
    scheduler.request(plan.outputs[0])
    return scheduler, plan


def test_cached_target_is_found_without_asking_for_its_inputs() -> None:
    base = image("b")
    first = run("one", base)
    second = run("two", first)
    scheduler, plan = start(second, base, first)
    (action,) = scheduler.pending()
    assert isinstance(action, Lookup)
    assert action.vertex is second
    scheduler.feed(Found(second.digest, (layer("b"), layer("1"), layer("2"))))
    assert scheduler.pending() == ()
    assert scheduler.is_done
    assert [(v, o) for v, o in scheduler.ended()] == [
        (v, Outcome.CACHED) for v in (base, first, second)
    ]
    assert scheduler.result(plan.outputs[0])[-1] == layer("2")


def test_step_is_found_by_the_result_of_an_input_that_ran_again() -> None:
    base = image("b")
    first = run("one", base)
    second = run("two", first)
    scheduler, _ = start(second, base, first)
    (lookup,) = scheduler.pending()
    assert isinstance(lookup, Lookup)
    scheduler.feed(Missed(second.digest))
    (lookup_first,) = scheduler.pending()
    scheduler.feed(Missed(first.digest))
    (run_first,) = scheduler.pending()
    assert isinstance(run_first, Run)
    scheduler.feed(Ran(first.digest, (layer("b"), layer("1"))))
    (again,) = scheduler.pending()
    assert isinstance(again, Lookup)
    assert again.keys[0] == lookup.keys[0]
    assert again.keys[1] != lookup.keys[0]
    same_result = run("two", image("b", "1"))
    other, _ = start(same_result, image("b", "1"))
    (direct,) = other.pending()
    assert isinstance(direct, Lookup)
    assert direct.keys[0].digest == again.keys[1].digest  # the chain's key knows no history
    assert lookup_first.vertex is first


def test_context_is_digested_before_the_first_lookup() -> None:
    context, base = make(LocalSource("context")), image("b")
    copy = make(FileOp((CopyAction(1, (".",), "/"),)), base, context)
    scheduler, _ = start(copy, base, context)
    (select,) = scheduler.pending()
    assert isinstance(select, Select)
    assert select.inputs == ((layer("b"),), None)
    scheduler.feed(Selected(copy.digest, ((0, Digest.of(b"c")),)))
    (lookup,) = scheduler.pending()
    assert isinstance(lookup, Lookup)


def test_copy_from_a_stage_is_looked_up_by_content_before_it_runs() -> None:
    base = image("b")
    stage = run("build", base)
    copy = make(FileOp((CopyAction(1, ("bin",), "/bin"),)), None, stage)
    scheduler, _ = start(copy, base, stage)
    for missed in (copy, stage):
        (action,) = scheduler.pending()
        assert isinstance(action, Lookup)
        scheduler.feed(Missed(missed.digest))
    scheduler.pending()
    scheduler.feed(Ran(stage.digest, (layer("b"), layer("s"))))
    (by_chain,) = scheduler.pending()
    assert isinstance(by_chain, Lookup)
    scheduler.feed(Missed(copy.digest))
    (select,) = scheduler.pending()
    assert isinstance(select, Select)
    assert select.inputs == ((), (layer("b"), layer("s")))
    scheduler.feed(Selected(copy.digest, ((0, Digest.of(b"c")),)))
    (by_content,) = scheduler.pending()
    assert isinstance(by_content, Lookup)
    scheduler.feed(Found(copy.digest, (layer("c"),)))
    assert scheduler.is_done


def test_independent_stages_are_proposed_together() -> None:
    base = image("b")
    stages = [run(f"stage{n}", base) for n in range(4)]
    actions = tuple(CopyAction(n + 1, ("f",), f"/{n}") for n in range(4))
    target = make(FileOp(actions), base, *stages)
    scheduler, _ = start(target, base, *stages, no_cache=True)
    proposed = scheduler.pending()
    assert [a.vertex for a in proposed if isinstance(a, Run)] == stages


def test_no_cache_proposes_no_lookup() -> None:
    base = image("b")
    step = make(FileOp((MkdirAction("/w"),)), base)
    scheduler, _ = start(step, base, no_cache=True)
    (action,) = scheduler.pending()
    assert isinstance(action, Run)
    assert action.keys


def test_equal_work_under_two_vertices_runs_once() -> None:
    one = make(ImageSource("a", Digest.of(b"m1"), (layer("b"),), "linux/amd64"))
    two = make(ImageSource("b", Digest.of(b"m2"), (layer("b"),), "linux/amd64"))
    first, second = run("x", one), run("x", two)
    actions = (CopyAction(1, ("f",), "/1"), CopyAction(2, ("f",), "/2"))
    target = make(FileOp(actions), None, first, second)
    scheduler, _ = start(target, one, two, first, second, no_cache=True)
    (action,) = scheduler.pending()
    scheduler.feed(Ran(action.vertex.digest, (layer("b"), layer("x"))))
    ended = dict(scheduler.ended())
    assert ended[first] is Outcome.RAN
    assert ended[second] is Outcome.CACHED


def test_a_chain_of_a_thousand_steps_needs_no_recursion() -> None:
    steps = [image("b")]
    for number in range(1000):
        steps.append(run(str(number), steps[-1]))
    scheduler, _ = start(steps[-1], *steps, no_cache=True)
    for number in range(1000):
        (action,) = scheduler.pending()
        scheduler.feed(Ran(action.vertex.digest, (layer(str(number)),)))
    assert scheduler.is_done


def test_a_chain_of_merges_that_wait_for_the_lowest_needs_no_recursion() -> None:
    below = image("b")
    lowest = run("lowest", below)
    layers = [run(str(number), None) for number in range(3000)]
    merges = merges_of(lowest, layers)
    plan = needed([below, lowest, *layers, *merges], [Edge(merges[-1].digest)])
    scheduler = Scheduler(plan, no_cache=True)
    scheduler.request(plan.outputs[0])
    ran = [action.vertex for action in scheduler.pending()]
    for vertex_ in reversed(ran):
        scheduler.feed(Ran(vertex_.digest, (layer(str(vertex_.digest)),)))
    assert scheduler.is_done
    assert len(scheduler.result(plan.outputs[0])) == 3001


def merges_of(lowest: Vertex, layers: list[Vertex]) -> list[Vertex]:
    """The stack of the layers, one merge on the other."""
    merges = [lowest]
    for each in layers:
        merges.append(make(Merge(), merges[-1], each))
    return merges[1:]


def test_cached_end_of_a_long_chain_ends_all_that_nobody_wants() -> None:
    steps = [image("b")]
    for number in range(3000):
        steps.append(run(str(number), steps[-1]))
    scheduler, _ = start(steps[-1], *steps)
    (lookup,) = scheduler.pending()
    scheduler.feed(Found(lookup.vertex.digest, (layer("b"),)))
    assert {outcome for _, outcome in scheduler.ended()} == {Outcome.CACHED}
    assert len(scheduler.results()) == 3001


def test_stage_that_two_steps_use_ends_with_the_last_of_them() -> None:
    base = image("b")
    shared = run("shared", base)
    one, two = run("one", shared), run("two", shared)
    actions = (CopyAction(1, ("f",), "/1"), CopyAction(2, ("f",), "/2"))
    target = make(FileOp(actions), None, one, two)
    scheduler, _ = start(target, base, shared, one, two)
    (lookup,) = scheduler.pending()
    scheduler.feed(Missed(lookup.vertex.digest))
    first, second = scheduler.pending()
    scheduler.feed(Found(first.vertex.digest, (layer("1"),)))
    assert shared not in dict(scheduler.ended())
    scheduler.feed(Found(second.vertex.digest, (layer("2"),)))
    assert dict(scheduler.ended())[shared] is Outcome.CACHED


def test_empty_output_needs_nothing() -> None:
    scheduler = Scheduler(Plan((), (None,)))
    scheduler.request(None)
    assert scheduler.is_done
    assert scheduler.result(None) == ()
