# SPDX-License-Identifier: Apache-2.0
"""What the room asks of its callers, and how a step fails."""

from __future__ import annotations

from lamina.errors import Kind, SourceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from typing import Protocol

    from lamina.builder.mounting import StepMounts
    from lamina.plan.ops import Exec
    from lamina.solver.keys import Key
    from lamina.spec.digest import ChainID, Digest, Stack
    from lamina.spec.span import Span
    from lamina.store.ports import CacheRecord, KeyHistory
    from lamina.tasks import CancelToken

    # A network namespace for one step with the default network: its path, freed on exit.
    NetworkProvider = Callable[[], AbstractContextManager[str]]

    # The step's mounts, given where its root is mounted; undone on exit.
    MountProvider = Callable[[str], AbstractContextManager[StepMounts]]
    # The same, for the files that a failed step left.
    FailedMounts = Callable[[], AbstractContextManager[StepMounts]]

    class Imported(Protocol):
        """Results that other machines made. Any thread may call it."""

        def look_up(self, keys: Sequence[Key], *, fits: Callable[[Stack], bool]) -> Stack | None:
            """The result under the first of these keys; its layers need not be here yet. What does
            not fit is wrong: it is told, and not believed again.
            """

        def take(self, vertex: Digest, keys: Sequence[Key], records: list[CacheRecord]) -> None:
            """Note a result that is used; the records are for the store when it has the layers."""

        def bring(self, stack: Stack, cancel: CancelToken) -> None:
            """Have every layer of the stack in the store that is known elsewhere only."""

        def history(self, own: KeyHistory, site: str) -> KeyHistory:
            """The store's history with what was imported."""

        def origin_of(self, key: str) -> str:
            """Where a key was imported from; empty if it was not."""


class StepFailed(SourceError):
    """A step's process ended with a failure; `status` is its exit status, `output` its last
    output (at most `execution.TAIL` bytes). `kept` is the snapshot of its files, `op` what ran and `mounts`
    makes what it had mounted once more, if they were asked for; `mounts` only before `solve` ends.
    """

    kind = Kind.STEP_FAILED
    kept: ChainID | None = None
    op: Exec | None = None
    mounts: FailedMounts | None = None

    def __init__(self, what: str, *, span: Span | None, status: int, output: bytes) -> None:
        super().__init__(what, span=span)
        self.status = status
        self.output = output

    def keep(self, chain: ChainID, op: Exec, mounts: FailedMounts | None) -> None:
        """Say where the step's files are, what ran, and what makes its mounts again."""
        self.kept, self.op, self.mounts = chain, op, mounts
