# SPDX-License-Identifier: Apache-2.0
"""What comes out of lowering, as a value."""

from __future__ import annotations

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina.events import Diagnostic
    from lamina.plan.graph import Plan
    from lamina.spec.config import ImageConfig


_NO_ARGUMENTS: Mapping[int, Mapping[str, str | None]] = {}


class Lowered(Record):
    """The result.

    `plan.outputs` is one edge, the target's filesystem (None: empty). `config` is the image's
    final config with the base's diff_ids only (there are `base_layers` of them, `layers` with the
    build's own) and the whole history; every history entry with a layer after the base's stands for
    one vertex of the chain. `stages` are the numbers of the stages that are built, in order,
    `arguments` the values of the ARGs at the end of each.
    """

    plan: Plan
    config: ImageConfig
    base_layers: int
    layers: int
    diagnostics: tuple[Diagnostic, ...] = ()
    stages: tuple[int, ...] = ()
    arguments: Mapping[int, Mapping[str, str | None]] = _NO_ARGUMENTS
