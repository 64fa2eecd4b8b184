# SPDX-License-Identifier: Apache-2.0
"""`solve`: run a plan against a store. The one entry point of the room.

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
    from lamina.events import Emitter, Outcome
    from lamina.plan.graph import Plan, Vertex
    from lamina.spec.digest import DiffID, Digest
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

    Result = tuple[DiffID, ...]


class Solved(Record):
    """The stacks of the plan's outputs, and how many steps ran and were cached."""

    outputs: tuple[tuple[DiffID, ...], ...]
    ran: int
    cached: int


def solve(
    plan: Plan,
    *,
    store: Store,
    executor: Callable[[], Executor] | None,
    contexts: Mapping[str, Context],
    options: SolveOptions,
    network: NetworkProvider | None,
    emit: Emitter,
    cancel: CancelToken | None,
    clock: Callable[[], float],
    remote: Fetcher | None = None,
    ends: dict[Digest, tuple[Outcome, Result | None]] | None = None,
    keys: dict[Digest, str] | None = None,
    imported: Imported | None = None,
    on_made: Callable[[Vertex, Result], None] | None = None,
) -> Solved:
    """The results of the plan's outputs; what ran is recorded in the store.

    `executor` is called at most once, before any thread is started, when a step may have to run.
    `clock` gives POSIX seconds. `network` gives a network namespace to each step with the default network (None: the host's).
    `remote` brings what URLs and git repositories hold (None: a step that needs it fails).
    `ends` is filled with how each vertex ended and its stack, if it is known, `keys` with the primary
    keys of steps: if it fails, too.
    `imported` answers where the store's cache does not; `on_made` hears of each step that ran, with
    its stack, from the thread that ran it.
    Every vertex gets one VertexPlanned and one VertexDone. Steps that ended before a failure stay
    cached.

    Raises:
        LaminaError: what the first failing step raised: StepFailed, or a SourceError that shows
            the instruction.
        Cancelled: `cancel` was set.
    """
    scheduler = Scheduler(plan, no_cache=options.no_cache)
    for edge in plan.outputs:
        scheduler.request(edge)
    scratch = Scratch(options.scratch_dir or os.path.join(store.root, "build"))
    sources = Sources(
        plan,
        store=store,
        contexts=contexts,
        git_modes=options.git_modes,
        remembers=not options.no_cache,
        remote=remote,
        imported=imported,
        emit=emit,
        clock=clock,
        cancel=cancel,
    )

    def maker() -> Maker:
        from lamina.builder.making import Maker, mounted_copies

        return Maker(
            sources,
            mounted=mounted_copies(plan),
            store=store,
            executor=executor,
            options=options,
            network=network,
            scratch=scratch,
            emit=emit,
            clock=clock,
            cancel=cancel,
        )

    worker = BuildWorker(
        plan,
        sources=sources,
        maker=maker,
        store=store,
        options=options,
        scratch=scratch,
        emit=emit,
        clock=clock,
        key_of=scheduler.key_of,
        unsure=frozenset(scheduler.unsure),
        imported=imported,
        on_made=on_made,
    )
    driver = Driver(
        scheduler,
        worker,
        plan=plan,
        jobs=options.jobs,
        emit=emit,
        clock=clock,
        cancel=cancel,
    )
    try:
        counts = driver.drive()
    except SourceError as error:
        if options.on_failed is not None:
            from lamina.builder.ports import StepFailed

            if isinstance(error, StepFailed) and error.kept is not None:
                options.on_failed(error)
        raise
    finally:
        if ends is not None:
            ends.update(scheduler.results())
        if keys is not None:
            keys.update(scheduler.keys())
        worker.close()
        scratch.close()
    outputs = tuple(scheduler.result(edge) for edge in plan.outputs)
    return Solved(outputs, counts.ran, counts.cached)
