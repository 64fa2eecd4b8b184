# SPDX-License-Identifier: Apache-2.0
"""Build images: parse, resolve, lower, solve, export. docs/architecture.md walks through it.

`build_all` builds several targets in one solve, so that what they share runs once; `build` is that
for a single one. Each target is recorded (`lamina.app.history`).
"""

from __future__ import annotations

from lamina.app.buildrequest import BuildOutcome, Planned, Target
from lamina.errors import Kind, LaminaError
from lamina.events import BuildDone
from lamina.plan.graph import merged
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import IO

    from lamina.app.buildrequest import BuildRequest
    from lamina.app.caches import Caches
    from lamina.app.history import Recorder
    from lamina.app.wiring import BuildHost
    from lamina.builder.build import Ended
    from lamina.builder.context import Context
    from lamina.dockerfile.lowered import Lowered
    from lamina.events import Event
    from lamina.exporter.ports import BuildResult, Exported, PendingExport
    from lamina.plan.graph import Plan, Vertex
    from lamina.spec.digest import Stack
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import Work


def build(
    request: BuildRequest,
    *,
    store: Store,
    host: BuildHost,
    work: Work,
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
        work=work,
        stdout=stdout,
    )
    return outcomes[""]


def build_all(
    requests: Mapping[str, BuildRequest],
    *,
    store: Store,
    host: BuildHost,
    work: Work,
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
        name: Recorder(store, subject_of(request, name), clock=work.clock, emit=work.emit)
        for name, request in requests.items()
    }

    def tell(event: Event) -> None:
        work.emit(event)
        for recorder in recorders.values():
            recorder.note(event)

    with store.lease("build"):
        for recorder in recorders.values():
            recorder.begin()
        try:
            targets = [
                _target(name, request, recorder=recorders[name], stdout=stdout)
                for name, request in requests.items()
            ]
            building = _Building(targets, store=store, host=host, work=replace(work, emit=tell))
            outcomes = building.outcomes()
        except BaseException as error:
            for recorder in recorders.values():
                recorder.failed(error)
            raise
        for target in targets:
            _record_success(target, outcomes[target.name])
    if any(outcome.ran for outcome in outcomes.values()):
        host.collect_cache(work.clock)
    return outcomes


def _target(
    name: str,
    request: BuildRequest,
    *,
    recorder: Recorder,
    stdout: IO[bytes] | None,
) -> Target:
    from lamina.exporter.ports import Output
    from lamina.exporter.table import make_exporter

    names = _names(request.tags)
    if any(output.push and not (names or output.names) for output in request.outputs):
        raise LaminaError("tag is needed when pushing to registry", kind=Kind.USAGE)
    exporters = tuple(
        make_exporter(
            output,
            stdout=stdout,
            privileged=request.privileged,
            platforms=bool(request.platforms),
        )
        for output in request.outputs or (Output(),)
    )
    return Target(name, request, recorder, names, exporters)


class _Building:
    """The targets on their way, and what they are built with."""

    def __init__(
        self, targets: Sequence[Target], *, store: Store, host: BuildHost, work: Work
    ) -> None:
        self._targets = targets
        self._store = store
        self._host = host
        self._work = work
        self._caches: Caches | None = None

    def outcomes(self) -> dict[str, BuildOutcome]:
        """What was built, by target; attempted again while imported caches lose layers."""
        requests = [target.request for target in self._targets]
        if not any(request.cache_from or request.cache_to for request in requests):
            return self._attempt()
        from lamina.app.caches import Caches

        with Caches(self._targets, store=self._store, host=self._host, work=self._work) as caches:
            self._caches = caches
            self._work = replace(self._work, emit=caches.tell)
            while True:
                try:
                    return self._attempt()
                except (LaminaError, ExceptionGroup):
                    if not caches.begins_again():
                        raise
                except BaseException:
                    caches.end_attempts()
                    raise

    def _attempt(self) -> dict[str, BuildOutcome]:
        contexts = _contexts(self._targets)
        planned = self._lowered({directory: name for directory, (name, _) in contexts.items()})
        stacks, ended = self._solved(planned, dict(contexts.values()))
        pending: dict[str, list[PendingExport]] = {}
        try:
            self._export(planned, stacks, ended, pending)
        except BaseException:
            for exports in pending.values():
                for export in exports:
                    export.discard()
            raise
        # everything that can fail is done: files appear and names move now, images last of all
        outcomes = {
            each.target.name: self._finalized(each, pending[each.target.name], ended)
            for each in planned
        }
        for name in (name for target in self._targets for name in _pushed_names(target)):
            self._host.push(name, work=self._work)
        return outcomes

    def _lowered(self, contexts: Mapping[str, str]) -> list[Planned]:
        """The targets' plans; `contexts` has the names of build contexts in them, by directory."""
        from lamina.app.lowering import Bases, lower_options, lower_parts, warn_of_arguments
        from lamina.dockerfile.parser import parse

        results: dict[str, tuple[tuple[Platform, Lowered], ...]] = {}
        planned: list[Planned] = []
        for target in self._targets:  # a target comes after those it links to
            request = target.request
            dockerfile = parse(request.dockerfile, name=request.dockerfile_name)
            warn_of_arguments(request, self._work.emit)
            options = lower_options(request, context=contexts[request.context], results=results)
            bases = Bases(
                self._store,
                self._host,
                work=self._work,
                always=request.pull,
                caches=self._caches,
            )
            parts = lower_parts(
                dockerfile,
                options,
                request,
                bases=bases,
                work=self._work,
                host=self._host,
            )
            plan = merged(part.plan for part in parts) if len(parts) > 1 else parts[0].plan
            target.recorder.expect(plan, is_alone=len(self._targets) == 1)
            planned.append(Planned(target, parts, plan))
            platforms = request.platforms or (request.platform,)
            results[target.name] = tuple(zip(platforms, parts, strict=True))
        return planned

    def _solved(
        self, targets: Sequence[Planned], contexts: Mapping[str, Context]
    ) -> tuple[dict[str, list[Stack]], Ended]:
        """The stacks of each target, one a platform, and how all of their steps ended."""
        from lamina.builder.build import Providers, Solve
        from lamina.builder.options import SolveOptions, StepLimits

        plan, no_cache = _plan(targets)
        first, host, caches = targets[0].target.request, self._host, self._caches
        if caches is not None:
            caches.expect(targets)
        with host:
            solve = Solve(
                plan,
                store=self._store,
                contexts={**contexts, **self._named_trees(plan)},
                options=SolveOptions(
                    no_cache=no_cache,
                    jobs=first.jobs,
                    on_failed=first.on_failed,
                    git_modes=host.context_modes == "git",
                    limits=first.limits or StepLimits(),
                    secrets=first.secrets,
                    agents=first.agents,
                    build=targets[0].target.recorder.id,
                ),
                providers=Providers(host.executor, host.step_network, host),
                work=self._work,
                imported=caches.imports if caches is not None else None,
                on_made=caches.made if caches is not None else None,
            )
            try:
                outputs = iter(solve.run().outputs)
            finally:
                ended = solve.ended()
                if caches is not None:
                    ended = caches.ended(ended)
                for each in targets:
                    each.target.recorder.ended(ended, caches.origins() if caches else {})
        return {each.target.name: [next(outputs) for _ in each.parts] for each in targets}, ended

    def _named_trees(self, plan: Plan) -> dict[str, Context]:
        """The named contexts of all targets that are trees and are used."""
        sources = [source for target in self._targets for source in target.request.build_contexts]
        if not sources:
            return {}
        from lamina.app.contexts import context_trees, is_fetched

        remote = self._host.remote() if is_fetched(sources) else None
        return context_trees(
            sources, plan, remote=remote, store=self._store, cancel=self._work.cancel
        )

    def _export(
        self,
        targets: Sequence[Planned],
        stacks: Mapping[str, Sequence[Stack]],
        ended: Ended,
        pending: dict[str, list[PendingExport]],
    ) -> None:
        """Make every output; what is made so far is in `pending`, also if the next one fails."""
        store, caches = self._store, self._caches
        for each in targets:
            target = each.target
            exports = pending.setdefault(target.name, [])
            results = [
                _result(target, part, stack, now=self._work.clock(), ended=ended)
                for part, stack in zip(each.parts, stacks[target.name], strict=True)
            ]
            if caches is not None:
                caches.bring_results(target.request, results)
                results = caches.with_inline(each, results, ended)
            if target.request.squash:
                from lamina.exporter.squash import squashed

                results = [squashed(result, store, work=self._work) for result in results]
            for made in _exports(target, results, store, work=self._work):
                exports.append(made)
        if caches is not None:
            caches.export(targets, stacks, ended)

    def _finalized(
        self, planned: Planned, pending: Sequence[PendingExport], ended: Ended
    ) -> BuildOutcome:
        exported = [export.finalize() for export in pending]
        image = _image_of(exported)
        ran, cached = _counts(planned.plan, ended)
        outcome = BuildOutcome(
            image.manifest if image else None,
            image.config if image else None,
            tuple(dict.fromkeys(name for each in exported for name in each.names)),
            ran,
            cached,
            planned.target.recorder.id,
        )
        self._work.emit(
            BuildDone(outcome.manifest, outcome.config, outcome.names, self._work.clock())
        )
        return outcome


def _exports(
    target: Target, results: Sequence[BuildResult], store: Store, *, work: Work
) -> Iterator[PendingExport]:
    """Each output of the target, as it is made."""
    from lamina.exporter.ports import PlatformResult

    platforms = target.request.platforms
    for exporter in target.exporters:
        if platforms:
            parts = [PlatformResult(*pair) for pair in zip(platforms, results, strict=True)]
            yield exporter.export_platforms(parts, store, work=work)
        else:
            yield exporter.export(results[0], store, work=work)


def _counts(plan: Plan, ended: Ended) -> tuple[int, int]:
    """How many steps of the plan ran and were cached."""
    from lamina.events import Outcome
    from lamina.plan.ops import LayerOp

    steps = [each.digest for each in plan.vertices if isinstance(each.op, LayerOp)]
    ends = ended.ends
    ran = sum(digest in ends and ends[digest][0] is Outcome.RAN for digest in steps)
    return ran, len(steps) - ran


def _pushed_names(target: Target) -> tuple[str, ...]:
    """The names that outputs with `push` send to registries."""
    names: list[str] = []
    for output in target.request.outputs:
        if output.push:
            names += [*target.names, *_names(output.names)]
    return tuple(dict.fromkeys(names))


def _contexts(targets: Iterable[Target]) -> dict[str, tuple[str, Context]]:
    """By directory: the build context's name in the plan, and the context, which all targets of the
    directory share.
    """
    from lamina.builder.context import Context

    contexts: dict[str, tuple[str, Context]] = {}
    for request in (target.request for target in targets):
        if request.context not in contexts:
            name = f"context {len(contexts) + 1}" if contexts else "context"
            contexts[request.context] = name, Context(request.context, request.is_lasting)
    return contexts


def _plan(targets: Sequence[Planned]) -> tuple[Plan, bool]:
    """The plan of all targets, and whether nothing of it may come from the cache."""
    if len(targets) == 1:
        return targets[0].plan, targets[0].target.request.no_cache
    plans = []
    for each in targets:
        named = tuple(_of_target(vertex, each.target) for vertex in each.plan.vertices)
        plans.append(replace(each.plan, vertices=named))
    return merged(plans), False


def _of_target(vertex: Vertex, target: Target) -> Vertex:
    """The vertex with the target in its name, as bake prints it, and its own `no_cache`."""
    name = vertex.meta.name
    if name.startswith("["):
        name = f"[{target.name} {name[1:].lstrip()}"
    ignore_cache = vertex.meta.ignore_cache or target.request.no_cache
    return replace(vertex, meta=replace(vertex.meta, name=name, ignore_cache=ignore_cache))


def _result(
    target: Target, part: Lowered, stack: Stack, *, now: float, ended: Ended
) -> BuildResult:
    from lamina.exporter.ports import BuildResult

    config = part.config
    if config.unknown:  # the base's cache records say nothing of this image's steps
        from lamina.buildcache.codec import INLINE_FIELD

        kept = tuple(pair for pair in config.unknown if pair[0] != INLINE_FIELD)
        config = replace(config, unknown=kept)
    ran, _ = _counts(part.plan, ended)
    return BuildResult(
        stack, config, part.base_layers, target.names, now, target.request.epoch, ran == 0
    )


def _record_success(target: Target, outcome: BuildOutcome) -> None:
    target.recorder.finish(
        {
            "status": "completed",
            "manifest": str(outcome.manifest or ""),
            "config": str(outcome.config or ""),
            "names": outcome.names,
        },
        warm=not outcome.ran,
    )


def _image_of(exported: Sequence[Exported]) -> Exported | None:
    return next((each for each in exported if each.manifest is not None), None)


def _names(tags: tuple[str, ...]) -> tuple[str, ...]:
    """The tags as normalised references, `latest` where none was given."""
    from lamina.spec.reference import Reference

    names: list[str] = []
    for tag in tags:
        reference = Reference.parse(tag)
        if reference.digest is not None:
            raise LaminaError(
                f"invalid tag {tag!r}: a digest cannot be given to a name", kind=Kind.USAGE
            )
        names.append(str(reference.with_default_tag()))
    return tuple(dict.fromkeys(names))
