# SPDX-License-Identifier: Apache-2.0
"""What the stack of a vertex must look like, known from the plan alone. Pure.

Every op adds exactly one layer to its base (`plan.ops`), and of base images the layers are known.
So a record of another machine can be seen to be wrong before anything of it is used.
"""

from __future__ import annotations

from lamina.errors import never
from lamina.plan.ops import GivenSource, ImageSource, LayerOp, Merge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.plan.graph import Edge, Plan
    from lamina.spec.digest import DiffID, Digest

    # A layer that is not known before it is made is None.
    Form = tuple[DiffID | None, ...]


def forms(plan: Plan) -> dict[Digest, Form]:
    """The form of each vertex's stack; sources that are no stack have an empty one."""
    found: dict[Digest, Form] = {}

    def of(edge: Edge | None) -> Form:
        return found[edge.vertex] if edge is not None else ()

    for vertex in plan.vertices:
        op = vertex.op
        if isinstance(op, ImageSource):
            found[vertex.digest] = op.diff_ids
        elif isinstance(op, LayerOp):
            found[vertex.digest] = (*of(vertex.inputs[0] if vertex.inputs else None), None)
        elif isinstance(op, Merge):
            found[vertex.digest] = tuple([layer for edge in vertex.inputs for layer in of(edge)])
        elif isinstance(op, GivenSource):
            found[vertex.digest] = ()
        else:
            never(op)
    return found


def has_form(result: Sequence[DiffID], form: Form) -> bool:
    """Whether the stack can be one of this form."""
    return len(result) == len(form) and all(
        expected is None or layer == expected for layer, expected in zip(result, form, strict=True)
    )
