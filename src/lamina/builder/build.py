# SPDX-License-Identifier: Apache-2.0
"""`Solve`: one run of a plan against a store. The one entry point of the room.

The caller holds a lease on the store; its executor has a mount namespace of its own (see
`system.mounts.isolate`). A plan that is fully cached costs a walk of its contexts and one lookup: no thread is
started, nothing is mounted, and no module of tar, compression or containers is imported.
"""

from __future__ import annotations

import os

from lamina.builder.scratch import Scratch
from lamina.builder.sources import Sources
from lamina.builder.worker import BuildWorker
from lamina.errors import SourceError
from lamina.solver.driver import Driver
from lamina.solver.scheduler import Scheduler
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lamina.builder.context import Context
    from lamina.builder.making import Maker
    from lamina.builder.options import SolveOptions
    from lamina.builder.ports import Imported, NetworkProvider
    from lamina.builder.sources import Fetcher
    from lamina.container.ports import Executor
    from lamina.events import Outcome
    from lamina.plan.graph import Plan, Vertex
    from lamina.spec.digest import Digest, Stack
    from lamina.store.ports import Store
    from lamina.tasks import Work


class Providers(Record):
    """Where steps get what a store has not.

    - `executor`: is called at most once, before any thread is started, when a step may have to run.
    - `network`: a network namespace for each step with the default network; None: the host's.
    - `remote`: what URLs and git repositories hold; None: a step that needs it fails.
    """

    executor: Callable[[], Executor] | None = None
    network: NetworkProvider | None = None
    remote: Fetcher | None = None


class Ended(Record):
    """How far a solve got: how each vertex ended and its stack, if that is known; and the primary
    keys of steps.
    """

    ends: Mapping[Digest, tuple[Outcome, Stack | None]]
    keys: Mapping[Digest, str]


class Solved(Record):
    """The stacks of the plan's outputs, and how many steps ran and were cached."""

    outputs: tuple[Stack, ...]
    ran: int
    cached: int


class Solve:
    """One run of a plan: `run` it once; `ended` tells how far it got, also after a failure.

    `clock` gives POSIX seconds. `imported` answers where the store's cache does not; `on_made` hears
    of each step that ran, with its stack, from the thread that ran it.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        store: Store,
        contexts: Mapping[str, Context],
        options: SolveOptions,
        providers: Providers,
        work: Work,
        imported: Imported | None = None,
        on_made: Callable[[Vertex, Stack], None] | None = None,
    ) -> None:
        self._plan = plan
        self._options = options
        self._scheduler = scheduler = Scheduler(plan, no_cache=options.no_cache)
        for edge in plan.outputs:
            scheduler.request(edge)
        self._scratch = scratch = Scratch(options.scratch_dir or os.path.join(store.root, "build"))
        sources = Sources(
            plan,
            store=store,
            contexts=contexts,
            git_modes=options.git_modes,
            remembers=not options.no_cache,
            remote=providers.remote,
            imported=imported,
            work=work,
        )

        def maker() -> Maker:
            from lamina.builder.making import Maker, mounted_copies

            return Maker(
                sources,
                mounted=mounted_copies(plan),
                store=store,
                executor=providers.executor,
                options=options,
                network=providers.network,
                scratch=scratch,
                work=work,
            )

        self._worker = BuildWorker(
            plan,
            sources=sources,
            maker=maker,
            store=store,
            options=options,
            scratch=scratch,
            emit=work.emit,
            clock=work.clock,
            key_of=scheduler.key_of,
            unsure=frozenset(scheduler.unsure),
            imported=imported,
            on_made=on_made,
        )
        self._driver = Driver(scheduler, self._worker, plan=plan, jobs=options.jobs, work=work)

    def run(self) -> Solved:
        """The results of the plan's outputs; what ran is recorded in the store.

        Every vertex gets one VertexPlanned and one VertexDone. Steps that ended before a failure
        stay cached.

        Raises:
            LaminaError: what the first failing step raised: StepFailed, or a SourceError that shows
                the instruction.
            Cancelled: `cancel` was set.
        """
        try:
            counts = self._driver.drive()
        except SourceError as error:
            on_failed = self._options.on_failed
            if on_failed is not None:
                from lamina.builder.ports import StepFailed

                if isinstance(error, StepFailed) and error.kept is not None:
                    on_failed(error)
            raise
        finally:
            self._worker.close()
            self._scratch.close()
        outputs = tuple(self._scheduler.result(edge) for edge in self._plan.outputs)
        return Solved(outputs, counts.ran, counts.cached)

    def ended(self) -> Ended:
        """How far it got by now."""
        return Ended(self._scheduler.results(), self._scheduler.keys())
