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
    from lamina.builder.execution import NetworkProvider, StepFailed
    from lamina.builder.making import Maker
    from lamina.builder.secrets import Secrets
    from lamina.builder.sources import Fetcher
    from lamina.builder.sshagents import SshAgents
    from lamina.builder.worker import Imported
    from lamina.container.ports import Executor
    from lamina.events import Emitter, Outcome
    from lamina.plan.graph import Plan, Vertex
    from lamina.spec.digest import Digest, Stack
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken


class StepLimits(Record):
    """What each RUN step may take; no part of a cache key, except that an op has its `ulimits`.

    `memory` and `memory_swap` (with swap) in bytes, `cpus` in CPUs, 0 for no limit (`memory_swap`
    -1: no limit on swap); `ulimits` are (name, soft, hard), -1 for unlimited.
    `cpu_period` is the time in microseconds over which `cpus` counts. The others are the
    kernel's `cpu.shares`, and lists of CPUs and memory nodes (`0-2,5`).
    """

    memory: int = 0
    memory_swap: int = 0
    cpus: float = 0.0
    cpu_period: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    ulimits: tuple[tuple[str, int, int], ...] = ()


class SolveOptions(Record):
    """`jobs` limits the steps that run at one time (None: no limit; steps wait for networks and
    disks more than they compute). `compression` and `level` are for the blobs of exported layers.
    `scratch_dir` is for mount points and temporary files (empty: `build` in the store).
    With `on_failed` the files of a RUN step that fails are kept as a snapshot, and it is called with
    the failure when all other steps have ended.
    `secrets` and `agents` are what RUN steps may mount. With `git_modes` files of build contexts have
    git's modes (0644, 0755; directories 0755), in keys and in layers. `build` is the id of the build's
    record: cache mounts say who used them.
    """

    no_cache: bool = False
    jobs: int | None = None
    compression: str = "gzip"
    level: int | None = None
    scratch_dir: str = ""
    on_failed: Callable[[StepFailed], None] | None = None
    git_modes: bool = False
    limits: StepLimits = StepLimits()
    secrets: Secrets | None = None
    agents: SshAgents | None = None
    build: str = ""


class Solved(Record):
    """The stacks of the plan's outputs, and how many steps ran and were cached."""

    outputs: tuple[Stack, ...]
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
    ends: dict[Digest, tuple[Outcome, Stack | None]] | None = None,
    keys: dict[Digest, str] | None = None,
    imported: Imported | None = None,
    on_made: Callable[[Vertex, Stack], None] | None = None,
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
            from lamina.builder.execution import StepFailed

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
