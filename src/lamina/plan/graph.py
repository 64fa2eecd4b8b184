# SPDX-License-Identifier: Apache-2.0
"""Vertices, edges and plans, and the digests that name them."""

from __future__ import annotations

from lamina.plan.codec import encode_op
from lamina.spec.digest import Digest
from lamina.spec.document import dump
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamina.plan.ops import Op
    from lamina.spec.span import Span


class Edge(Record):
    """The output of the vertex with this digest, used as an input or as the plan's result."""

    vertex: Digest


class VertexMeta(Record):
    """What people see of a vertex; never part of a digest.

    `name` as BuildKit prints it (`[builder 2/4] RUN make`), `stage` the stage's name or number.
    `exported` says that the layer it adds is part of the target image, so that its blob is wanted
    anyway; `ignore_cache` that the step runs again whatever the cache holds. `arguments` are the
    names of ARGs among the variables it sees.
    """

    name: str
    stage: str = ""
    span: Span | None = None
    exported: bool = False
    ignore_cache: bool = False
    arguments: tuple[str, ...] = ()


class Vertex(Record):
    """An op and its inputs; None as an input is the empty tree. Build with `vertex()`."""

    digest: Digest
    op: Op
    inputs: tuple[Edge | None, ...]
    meta: VertexMeta


class Plan(Record):
    """Vertices with inputs before users, and the edges wanted (None: the empty tree)."""

    vertices: tuple[Vertex, ...]
    outputs: tuple[Edge | None, ...]


def vertex(op: Op, inputs: Iterable[Edge | None] = (), *, meta: VertexMeta) -> Vertex:
    """The vertex, its digest made from the op and the inputs' digests."""
    edges = tuple(inputs)
    document = {
        "op": encode_op(op),
        "inputs": [str(edge.vertex) if edge is not None else None for edge in edges],
    }
    return Vertex(Digest.of(dump(document)), op, edges, meta)


def needed(vertices: Iterable[Vertex], outputs: Iterable[Edge | None]) -> Plan:
    """The plan with only what the outputs need, order kept, equal vertices once."""
    known: dict[Digest, Vertex] = {}
    for candidate in vertices:
        known.setdefault(candidate.digest, candidate)
    wanted = tuple(outputs)
    seen: set[Digest] = set()
    todo = [edge.vertex for edge in wanted if edge is not None]
    while todo:
        digest = todo.pop()
        if digest in seen:
            continue
        seen.add(digest)
        todo += [edge.vertex for edge in known[digest].inputs if edge is not None]
    return Plan(tuple(v for v in known.values() if v.digest in seen), wanted)


def merged(plans: Iterable[Plan]) -> Plan:
    """One plan with the outputs of all, in order; equal vertices once, inputs before users.

    A vertex is exported, or ignores the cache, if it does in any of the plans.
    """
    known: dict[Digest, Vertex] = {}
    outputs: list[Edge | None] = []
    for plan in plans:
        outputs += plan.outputs
        for one in plan.vertices:
            old = known.setdefault(one.digest, one)
            if old is not one:
                known[one.digest] = replace(old, meta=combined(old.meta, one.meta))
    return Plan(tuple(known.values()), tuple(outputs))


def combined(first: VertexMeta, second: VertexMeta) -> VertexMeta:
    """The first one's words, with what either of them asks for."""
    return replace(
        first,
        exported=first.exported or second.exported,
        ignore_cache=first.ignore_cache or second.ignore_cache,
    )
