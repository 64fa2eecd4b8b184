# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from lamina.plan.graph import Edge, VertexMeta, needed, vertex
from lamina.plan.ops import Exec, FileOp, ImageSource, LocalSource, Merge, MkdirAction
from lamina.solver.stacks import forms, has_form
from lamina.spec.digest import DiffID, Digest

A, B, C = (DiffID(Digest.of(letter)) for letter in (b"a", b"b", b"c"))
META = VertexMeta("n")


def test_a_stack_is_its_base_and_one_layer_a_step() -> None:
    base = vertex(ImageSource("i", Digest.of(b"m"), (A, B), "linux/amd64"), meta=META)
    run = vertex(Exec(("x",), (), "/"), [Edge(base.digest)], meta=META)
    context = vertex(LocalSource("context"), meta=META)
    linked = vertex(
        FileOp((MkdirAction("/d"),)), [None, Edge(context.digest), Edge(base.digest)], meta=META
    )
    merged = vertex(Merge(), [Edge(run.digest), Edge(linked.digest)], meta=META)
    every = (base, run, context, linked, merged)
    found = forms(needed(every, [Edge(merged.digest)]))
    assert found[run.digest] == (A, B, None)
    assert found[linked.digest] == (None,)
    assert found[merged.digest] == (A, B, None, None)
    assert has_form((A, B, C), found[run.digest])
    assert not has_form((A, C, C), found[run.digest])
    assert not has_form((A, B), found[run.digest])
    assert not has_form((), found[run.digest])
