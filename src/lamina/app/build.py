# SPDX-License-Identifier: Apache-2.0
"""Build images: parse, resolve, lower, solve, export. docs/architecture.md walks through it.

`build_all` builds several targets in one solve, so that what they share runs once; `build` is that
for a single one. Each target is recorded (`lamina.app.history`).
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.events import BuildDone
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import IO

    from lamina.app.buildrequest import BuildOutcome, BuildRequest
    from lamina.app.caches import Caches
    from lamina.app.history import Recorder
    from lamina.app.wiring import BuildHost
    from lamina.builder.build import Solved
    from lamina.builder.context import Context
    from lamina.dockerfile.lowered import Lowered
    from lamina.events import Emitter, Event
    from lamina.exporter.ports import BuildResult, Exported, Exporter, PendingExport
    from lamina.plan.graph import Plan, Vertex
    from lamina.spec.digest import DiffID
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken


class _Target:
    """One target on its way: what was asked for, and what is known of it so far."""

    def __init__(
        self,
        name: str,
        request: BuildRequest,
        *,
        recorder: Recorder,
        stdout: IO[bytes] | None,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.request = request
        self.recorder = recorder
        self.names = _names(request.tags)
        if any(output.push and not (self.names or output.names) for output in request.outputs):
            raise LaminaError("tag is needed when pushing to registry", kind=Kind.USAGE)
        self._plan: Plan | None = None
        self.exporters = _exporters(request, stdout, clock)
        self.context = "context"
        self.parts: tuple[Lowered, ...] = ()  # one a platform
        self.pending: list[PendingExport] = []

    @property
    def plan(self) -> Plan:
        """The plan of all its platforms."""
        if len(self.parts) == 1:
            return self.parts[0].plan
        if self._plan is None:
            from lamina.app.platforms import plan_of

            self._plan = plan_of(self.parts)
        return self._plan

    def counts(self, plan: Plan | None = None) -> tuple[int, int]:
        """How many of its steps (of `plan`: of one platform) ran and were cached."""
        from lamina.events import Outcome
        from lamina.plan.ops import LayerOp

        vertices = (plan or self.plan).vertices
        steps = [vertex.digest for vertex in vertices if isinstance(vertex.op, LayerOp)]
        ends = self.recorder.ends
        ran = sum(digest in ends and ends[digest][0] is Outcome.RAN for digest in steps)
        return ran, len(steps) - ran


def build(
    request: BuildRequest,
    *,
    store: Store,
    host: BuildHost,
    emit: Emitter,
    cancel: CancelToken,
    clock: Callable[[], float],
    stdout: IO[bytes] | None = None,
) -> BuildOutcome:
    """Build and export `request`; names are set last, all or none.

    Raises:
        SourceError: the Dockerfile is wrong, a base is missing, or a step failed (STEP_FAILED).
        LaminaError: anything else the user can act on.
        Cancelled: the token was set.
    """
    outcomes = build_all(
        {"": request},
        store=store,
        host=host,
        emit=emit,
        cancel=cancel,
        clock=clock,
        stdout=stdout,
    )
    return outcomes[""]


def build_all(
    requests: Mapping[str, BuildRequest],
    *,
    store: Store,
    host: BuildHost,
    emit: Emitter,
    cancel: CancelToken,
    clock: Callable[[], float],
    stdout: IO[bytes] | None = None,
) -> dict[str, BuildOutcome]:
    """Build and export several targets, by name, as one graph: a step that two of them need runs
    once. Names are set when everything is made. `jobs` is that of the first. A target stands after
    those that its build contexts link to.

    Raises:
        LaminaError: as `build`; nothing is named then, steps that ended stay cached.
    """
    from lamina.app.history import Recorder
    from lamina.app.subject import subject_of

    recorders = {
        name: Recorder(store, subject_of(request, name), clock=clock, emit=emit)
        for name, request in requests.items()
    }

    def tell(event: Event) -> None:
        emit(event)
        for recorder in recorders.values():
            recorder.note(event)

    with store.lease("build"):
        for recorder in recorders.values():
            recorder.begin()
        try:
            targets = [
                _Target(name, request, recorder=recorders[name], stdout=stdout, clock=clock)
                for name, request in requests.items()
            ]
            outcomes = _build_targets(targets, store, host, tell, cancel, clock)
        except BaseException as error:
            for recorder in recorders.values():
                recorder.failed(error)
            raise
        for target in targets:
            _record_success(target, outcomes[target.name])
    if any(outcome.ran for outcome in outcomes.values()):
        host.collect_cache(clock)
    return outcomes


def _build_targets(
    targets: list[_Target],
    store: Store,
    host: BuildHost,
    emit: Emitter,
    cancel: CancelToken,
    clock: Callable[[], float],
) -> dict[str, BuildOutcome]:
    if not any(target.request.cache_from or target.request.cache_to for target in targets):
        return _attempt(targets, store, host, emit, cancel, clock, caches=None)
    from lamina.app.caches import Caches

    with Caches(targets, store=store, host=host, emit=emit, cancel=cancel, clock=clock) as caches:
        while True:
            try:
                return _attempt(targets, store, host, caches.tell, cancel, clock, caches=caches)
            except (LaminaError, ExceptionGroup):
                if not caches.begins_again():
                    raise
                for target in targets:
                    target.pending.clear()
            except BaseException:
                caches.end_attempts()
                raise


def _attempt(
    targets: list[_Target],
    store: Store,
    host: BuildHost,
    emit: Emitter,
    cancel: CancelToken,
    clock: Callable[[], float],
    *,
    caches: Caches | None,
) -> dict[str, BuildOutcome]:
    from lamina.app.lowering import Bases, lower_options, lower_parts, warn_of_arguments
    from lamina.dockerfile.parser import parse

    contexts = _contexts(targets)
    known: dict[str, tuple[tuple[Platform, Lowered], ...]] = {}
    for target in targets:  # a target comes after those it links to
        request = target.request
        dockerfile = parse(request.dockerfile, name=request.dockerfile_name)
        warn_of_arguments(request, emit)
        options = lower_options(request, context=target.context, results=known)
        bases = Bases(
            store, host, emit=emit, cancel=cancel, clock=clock, always=request.pull, caches=caches
        )
        target.parts = lower_parts(
            dockerfile, options, request, bases=bases, emit=emit, host=host, cancel=cancel
        )
        target.recorder.plan = target.plan
        platforms = request.platforms or (request.platform,)
        known[target.name] = tuple(zip(platforms, target.parts, strict=True))
    solved = _solve(targets, contexts, store, host, emit, cancel, clock, caches=caches)
    try:
        stacks = iter(solved.outputs)
        made_stacks: dict[str, list[tuple[DiffID, ...]]] = {}
        for target in targets:
            results = [_result(target, part, next(stacks), clock) for part in target.parts]
            made_stacks[target.name] = [result.diff_ids for result in results]
            if caches is not None:
                caches.bring_results(target, results)
                results = caches.with_inline(target, results)
            if target.request.squash:
                from lamina.exporter.squash import squashed

                results = [squashed(each, store, emit=emit, cancel=cancel) for each in results]
            _export(target, results, store, emit, cancel)
        if caches is not None:
            caches.export(made_stacks)
    except BaseException:
        for target in targets:
            for made in target.pending:
                made.discard()
        raise
    # everything that can fail is done: files appear and names move now, images last of all
    outcomes = {target.name: _finalized(target, emit, clock) for target in targets}
    for target in targets:
        for name in _pushed_names(target):
            host.push(name, emit=emit, cancel=cancel, clock=clock)
    return outcomes


def _pushed_names(target: _Target) -> tuple[str, ...]:
    """The names that outputs with `push` send to registries."""
    found: list[str] = []
    for output in target.request.outputs:
        if output.push:
            found += [*target.names, *_names(output.names)]
    return tuple(dict.fromkeys(found))


def _export(
    target: _Target,
    results: list[BuildResult],
    store: Store,
    emit: Emitter,
    cancel: CancelToken,
) -> None:
    """Add to what is pending: that must be known if the next export fails."""
    from lamina.exporter.ports import PlatformResult

    platforms = target.request.platforms
    for exporter in target.exporters:
        if platforms:
            parts = [PlatformResult(*pair) for pair in zip(platforms, results, strict=True)]
            made = exporter.export_platforms(parts, store, emit=emit, cancel=cancel)
        else:
            made = exporter.export(results[0], store, emit=emit, cancel=cancel)
        target.pending.append(made)


def _contexts(targets: list[_Target]) -> dict[str, Context]:
    """The build contexts by their name in the plan; targets of one directory share it."""
    from lamina.builder.context import Context

    names: dict[str, str] = {}
    found: dict[str, Context] = {}
    for target in targets:
        directory = target.request.context
        name = names.setdefault(directory, f"context {len(names) + 1}" if names else "context")
        target.context = name
        found[name] = Context(directory, target.request.is_lasting)
    return found


def _solve(
    targets: list[_Target],
    contexts: dict[str, Context],
    store: Store,
    host: BuildHost,
    emit: Emitter,
    cancel: CancelToken,
    clock: Callable[[], float],
    *,
    caches: Caches | None,
) -> Solved:
    from lamina.builder.build import solve
    from lamina.builder.options import SolveOptions, StepLimits

    plan, no_cache = _plan(targets)
    ends, keys = targets[0].recorder.ends, targets[0].recorder.keys
    for target in targets:  # the same vertices, filled by the one solve
        target.recorder.ends, target.recorder.keys = ends, keys
    first = targets[0].request
    with host:
        solved = solve(
            plan,
            store=store,
            contexts=contexts | _named_trees(targets, plan, store, host, cancel),
            options=SolveOptions(
                no_cache=no_cache,
                jobs=first.jobs,
                on_failed=first.on_failed,
                git_modes=host.context_modes == "git",
                limits=first.limits or StepLimits(),
                secrets=first.secrets,
                agents=first.agents,
                build=targets[0].recorder.id,
            ),
            executor=host.executor,
            network=host.step_network,
            remote=host,
            emit=emit,
            cancel=cancel,
            clock=clock,
            ends=ends,
            keys=keys,
            imported=caches.imports if caches is not None else None,
            on_made=caches.made if caches is not None else None,
        )
    if caches is not None:
        caches.solved(ends)
    return solved


def _plan(targets: list[_Target]) -> tuple[Plan, bool]:
    """The plan of all targets, and whether nothing of it may come from the cache."""
    if len(targets) == 1:
        return targets[0].plan, targets[0].request.no_cache
    from lamina.plan.graph import merged

    plans = []
    for target in targets:
        vertices = target.plan.vertices
        target.recorder.vertices = frozenset(vertex.digest for vertex in vertices)
        named = tuple(_of_target(vertex, target) for vertex in vertices)
        plans.append(replace(target.plan, vertices=named))
    return merged(plans), False


def _of_target(vertex: Vertex, target: _Target) -> Vertex:
    """The vertex with the target in its name, as bake prints it, and its own `no_cache`."""
    name = vertex.meta.name
    if name.startswith("["):
        name = f"[{target.name} {name[1:].lstrip()}"
    ignore_cache = vertex.meta.ignore_cache or target.request.no_cache
    return replace(vertex, meta=replace(vertex.meta, name=name, ignore_cache=ignore_cache))


def _result(
    target: _Target, part: Lowered, stack: tuple[DiffID, ...], clock: Callable[[], float]
) -> BuildResult:
    from lamina.exporter.ports import BuildResult

    config = part.config
    if config.unknown:  # the base's cache records say nothing of this image's steps
        from lamina.buildcache.codec import INLINE_FIELD

        kept = tuple(pair for pair in config.unknown if pair[0] != INLINE_FIELD)
        config = replace(config, unknown=kept)
    return BuildResult(
        stack,
        config,
        part.base_layers,
        target.names,
        clock(),
        target.request.epoch,
        target.counts(part.plan)[0] == 0,
    )


def _finalized(target: _Target, emit: Emitter, clock: Callable[[], float]) -> BuildOutcome:
    exported = [export.finalize() for export in target.pending]
    image = _image_of(exported)
    ran, cached = target.counts()
    from lamina.app.buildrequest import BuildOutcome

    outcome = BuildOutcome(
        image.manifest if image else None,
        image.config if image else None,
        tuple(dict.fromkeys(name for each in exported for name in each.names)),
        ran,
        cached,
        target.recorder.id,
    )
    emit(BuildDone(outcome.manifest, outcome.config, outcome.names, clock()))
    return outcome


def _record_success(target: _Target, outcome: BuildOutcome) -> None:
    target.recorder.finish(
        {
            "status": "completed",
            "manifest": str(outcome.manifest or ""),
            "config": str(outcome.config or ""),
            "names": outcome.names,
        },
        warm=not outcome.ran,
    )


def _named_trees(
    targets: list[_Target], plan: Plan, store: Store, host: BuildHost, cancel: CancelToken
) -> dict[str, Context]:
    """The named contexts of all targets that are trees and are used."""
    sources = [source for target in targets for source in target.request.build_contexts]
    if not sources:
        return {}
    from lamina.app.contexts import context_trees, is_fetched

    remote = host.remote() if is_fetched(sources) else None
    return context_trees(sources, plan, remote=remote, store=store, cancel=cancel)


def _image_of(exported: list[Exported]) -> Exported | None:
    return next((each for each in exported if each.manifest is not None), None)


def _names(tags: tuple[str, ...]) -> tuple[str, ...]:
    """The tags as normalised references, `latest` where none was given."""
    from lamina.spec.reference import Reference

    found: list[str] = []
    for tag in tags:
        reference = Reference.parse(tag)
        if reference.digest is not None:
            raise LaminaError(
                f"invalid tag {tag!r}: a digest cannot be given to a name", kind=Kind.USAGE
            )
        found.append(str(reference.with_default_tag()))
    return tuple(dict.fromkeys(found))


def _exporters(
    request: BuildRequest, stdout: IO[bytes] | None, clock: Callable[[], float]
) -> list[Exporter]:
    from lamina.exporter.ports import Output
    from lamina.exporter.table import make_exporter

    return [
        make_exporter(
            output,
            stdout=stdout,
            clock=clock,
            privileged=request.privileged,
            platforms=bool(request.platforms),
        )
        for output in request.outputs or (Output(),)
    ]
