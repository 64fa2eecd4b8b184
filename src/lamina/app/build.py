# SPDX-License-Identifier: Apache-2.0
"""Build images: parse, resolve, lower, solve, export. docs/architecture.md walks through it.

`build_all` builds several targets in one solve, so that what they share runs once; `build` is that
for a single one. Each target is recorded (`lamina.app.history`).
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError, SourceError
from lamina.events import BuildDone, Notice
from lamina.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import IO

    from lamina.app.caches import Caches
    from lamina.app.contexts import BuildContextSource, Results
    from lamina.app.history import Recorder
    from lamina.app.wiring import BuildHost
    from lamina.buildcache.options import CacheFrom, CacheTo
    from lamina.builder.build import Solved, StepLimits
    from lamina.builder.context import Context
    from lamina.builder.execution import StepFailed
    from lamina.builder.secrets import Secrets
    from lamina.builder.sshagents import SshAgents
    from lamina.dockerfile.ast import Dockerfile
    from lamina.dockerfile.lower import ImageRequest, Lowered, LowerOptions, ResolvedImage
    from lamina.dockerfile.remotes import Answer, NamedContext, RemoteRequest
    from lamina.events import Emitter, Event
    from lamina.exporter.output import Output
    from lamina.exporter.platforms import PlatformsExporter
    from lamina.exporter.ports import BuildResult, Exported, Exporter, PendingExport
    from lamina.plan.graph import Plan, Vertex
    from lamina.spec.digest import DiffID, Digest
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

_MAX_ROUNDS = 20  # of lowering; each ONBUILD chain adds one, and nobody nests them deeper


class BuildRequest(Record):
    """What to build.

    `context` is an absolute directory (`is_lasting` False: a temporary one) and `ignore` its `.dockerignore` patterns; `dockerfile` the
    file's bytes and `dockerfile_name` how messages call it. `tags` are references as typed;
    `outputs` what to make (empty: an image in the store). `epoch` is SOURCE_DATE_EPOCH in POSIX
    seconds; `jobs` bounds the steps that run at one time (None: as many as are ready).
    `allow` are entitlements, `limits` go to each RUN, `secrets` and `agents` are for its mounts.
    `privileged` (uid 0) lets `type=local` keep owners, setuid bits and device nodes. The steps of
    the stages in `no_cache_filter` run again. `pull` asks registries again for every base.
    `squash` makes one layer of all that the build adds
    to its base. `on_failed` is called with the failure of a step, whose files stay then.
    With `platforms` the result is an index of images for these, `platform` being the first of them.
    `build_platform` is that of this host (None: `platform`). Results are also looked for in
    `cache_from`, and the build's cache is written to `cache_to`.
    """

    context: str
    dockerfile: bytes
    platform: Platform
    is_lasting: bool = True
    dockerfile_name: str = "Dockerfile"
    ignore: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    target: str = ""
    build_args: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    squash: bool = False
    on_failed: Callable[[StepFailed], None] | None = None
    pull: bool = False
    outputs: tuple[Output, ...] = ()
    epoch: int | None = None
    jobs: int | None = None
    network: str = "default"
    extra_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int = 0
    privileged: bool = False
    build_contexts: tuple[BuildContextSource, ...] = ()
    allow: tuple[str, ...] = ()
    limits: StepLimits | None = None
    secrets: Secrets | None = None
    agents: SshAgents | None = None
    platforms: tuple[Platform, ...] = ()
    build_platform: Platform | None = None
    cache_from: tuple[CacheFrom, ...] = ()
    cache_to: tuple[CacheTo, ...] = ()


class BuildOutcome(Record):
    """What was built: digests are None if only files were written. `ran` and `cached` count steps.

    `id` is that of the build's record. For several platforms `manifest` is the index, `config` None.
    """

    manifest: Digest | None
    config: Digest | None
    names: tuple[str, ...]
    ran: int
    cached: int
    id: str = ""


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
        self.exporters: list[Exporter] = []
        self.platforms_exporters: list[PlatformsExporter] = []
        if request.platforms:
            self.platforms_exporters = _platforms_exporters(request, stdout, clock)
        else:
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
        from lamina.plan.ops import Exec, FileOp

        vertices = (plan or self.plan).vertices
        steps = [vertex.digest for vertex in vertices if isinstance(vertex.op, Exec | FileOp)]
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
    from lamina.dockerfile.parser import parse

    contexts = _contexts(targets)
    known: dict[str, tuple[tuple[Platform, Lowered], ...]] = {}
    for target in targets:  # a target comes after those it links to
        request = target.request
        dockerfile = parse(request.dockerfile, name=request.dockerfile_name)
        _warn_of_arguments(request, emit)
        options = lower_options(request, context=target.context, results=known)
        bases = Bases(
            store, host, emit=emit, cancel=cancel, clock=clock, always=request.pull, caches=caches
        )
        target.parts = _lower_parts(
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
            # what is made so far must be known if the next one fails
            for exporter in target.exporters:
                target.pending.append(exporter.export(results[0], store, emit=emit, cancel=cancel))
            if target.platforms_exporters:
                _export_platforms(target, results, store, emit, cancel)
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


def _lower_parts(
    dockerfile: Dockerfile,
    options: LowerOptions,
    request: BuildRequest,
    *,
    bases: Bases,
    emit: Emitter,
    host: BuildHost,
    cancel: CancelToken,
) -> tuple[Lowered, ...]:
    def lower_one(options: LowerOptions, emit: Emitter) -> Lowered:
        return lower(dockerfile, options, bases=bases, emit=emit, host=host, cancel=cancel)

    if not request.platforms:
        return (lower_one(options, emit),)
    from lamina.app.platforms import lower_each

    return lower_each(options, request.platforms, lower=lower_one, emit=emit)


def _export_platforms(
    target: _Target,
    results: list[BuildResult],
    store: Store,
    emit: Emitter,
    cancel: CancelToken,
) -> None:
    from lamina.exporter.platforms import PlatformResult

    pairs = zip(target.request.platforms, results, strict=True)
    parts = [PlatformResult(platform, result) for platform, result in pairs]
    for exporter in target.platforms_exporters:
        target.pending.append(exporter.export(parts, store, emit=emit, cancel=cancel))


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
    from lamina.builder.build import SolveOptions, StepLimits, solve

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


_BUILDKIT_ARGS = frozenset(
    {
        "BUILDKIT_CACHE_MOUNT_NS",
        "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
        "BUILDKIT_DOCKERFILE_CHECK",
        "BUILDKIT_INLINE_CACHE",
        "BUILDKIT_MULTI_PLATFORM",
        "BUILDKIT_SANDBOX_HOSTNAME",
    }
)


def _warn_of_arguments(request: BuildRequest, emit: Emitter) -> None:
    """Name the `BUILDKIT_...` arguments that mean something to BuildKit and nothing here."""
    for name, _ in request.build_args:
        if name.startswith("BUILDKIT_") and name not in _BUILDKIT_ARGS:
            emit(Notice(f"--build-arg {name} has no effect: lamina has no such setting"))


def lower(
    dockerfile: Dockerfile,
    options: LowerOptions,
    *,
    bases: Bases,
    emit: Emitter,
    host: BuildHost | None = None,
    cancel: CancelToken | None = None,
) -> Lowered:
    """Lowering, with the images it asks for found by `bases` and URLs and git repositories
    asked by `host` (None: they are refused); emits what the checks found.

    Raises:
        SourceError: as `Lowering.step`; with the line, for an image that cannot be had.
    """
    from lamina.dockerfile.lower import Lowered, Lowering, NeedRemotes

    lowering = Lowering(dockerfile, options)
    resolved: dict[tuple[str, str], ResolvedImage] = {}
    answers: dict[tuple[str, str], Answer] = {}
    try:
        for _ in range(_MAX_ROUNDS):
            step = lowering.step(resolved, answers)
            if isinstance(step, Lowered):
                return step
            if isinstance(step, NeedRemotes):
                for asked in step.requests:
                    answers[asked.key] = _ask(asked, host, cancel)
                continue
            for wanted in step.requests:
                resolved[wanted.key] = bases.find(wanted)
    finally:  # with `check=error=true` findings are what the error is about
        for diagnostic in lowering.diagnostics:
            emit(diagnostic)
    raise LaminaError(
        f"ONBUILD triggers of base images are nested deeper than {_MAX_ROUNDS}",
        kind=Kind.INVALID,
    )


class Bases:
    """Finds base images: in the store, else in a registry (`always`: there first)."""

    def __init__(
        self,
        store: Store,
        host: BuildHost,
        *,
        emit: Emitter,
        cancel: CancelToken,
        clock: Callable[[], float],
        always: bool = False,
        caches: Caches | None = None,
    ) -> None:
        self._caches = caches
        self._store = store
        self._host = host
        self._emit = emit
        self._cancel = cancel
        self._clock = clock
        self._always = always

    def find(self, request: ImageRequest) -> ResolvedImage:
        """The image. Raises SourceError at its line."""
        from lamina.dockerfile.remotes import LAYOUT

        if request.reference.startswith(LAYOUT):
            return resolve(request, self._store, self._cancel)
        if self._always:
            self._pull(request)
            return resolve(request, self._store, self._cancel)
        try:
            return resolve(request, self._store, self._cancel)
        except LaminaError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            known = self._caches.find_image(request) if self._caches is not None else None
            if known is not None:
                return known
            if not self._host.can_pull:
                raise
            self._pull(request, missing=error)
        return resolve(request, self._store, self._cancel)

    def _pull(self, request: ImageRequest, *, missing: LaminaError | None = None) -> None:
        try:
            self._host.pull(
                request.reference,
                request.platform,
                emit=self._emit,
                cancel=self._cancel,
                clock=self._clock,
            )
        except LaminaError as error:
            from lamina.spec.reference import Reference

            familiar = Reference.parse(request.reference).familiar()
            said = f'image "{familiar}" could not be pulled: {error}'
            if missing is not None:
                said = f"{missing.what}, and pulling it failed: {error}"
            hint = error.hint
            if error.kind is Kind.UNAVAILABLE and missing is not None:
                hint = missing.hint or error.hint
            raise SourceError(said, span=request.span, kind=error.kind, hint=hint) from error


def _ask(request: RemoteRequest, host: BuildHost | None, cancel: CancelToken | None) -> Answer:
    """What a URL or a ref is now. Raises SourceError at the line that names it."""
    from lamina.dockerfile.remotes import GitAnswer, UrlAnswer, UrlRequest
    from lamina.tasks import CancelToken

    token = cancel if cancel is not None else CancelToken()
    try:
        if host is None:
            raise LaminaError("remote sources are not available here", kind=Kind.UNSUPPORTED)
        if isinstance(request, UrlRequest):
            found = host.remote().url(request.url, cancel=token)
            return UrlAnswer(found.digest, found.mtime)
        ref = host.remote().git(request.remote, request.ref, cancel=token)
        return GitAnswer(ref.commit, ref.ref)
    except LaminaError as error:
        raise SourceError(
            error.what, span=request.span, kind=error.kind, hint=error.hint
        ) from error


def resolve(
    request: ImageRequest, store: Store, cancel: CancelToken | None = None
) -> ResolvedImage:
    """The stored image that `request` names. Raises SourceError (NOT_FOUND) at its line."""
    from lamina.dockerfile.lower import ResolvedImage
    from lamina.dockerfile.remotes import LAYOUT
    from lamina.image.resolve import find_image
    from lamina.spec.reference import Reference

    if request.reference.startswith(LAYOUT):
        return _resolve_layout(request, request.reference.removeprefix(LAYOUT), store, cancel)
    try:
        image = find_image(store, request.reference, platform=request.platform)
        return ResolvedImage(request.reference, image.descriptor().digest, image.config())
    except LaminaError as error:
        familiar = Reference.parse(request.reference).familiar()
        raise SourceError(
            error.what.replace(request.reference, familiar),
            span=request.span,
            kind=error.kind,
            hint=error.hint,
        ) from error


def _resolve_layout(
    request: ImageRequest, path: str, store: Store, cancel: CancelToken | None
) -> ResolvedImage:
    from lamina.dockerfile.lower import ResolvedImage
    from lamina.image.layout import load_layout
    from lamina.tasks import CancelToken

    token = cancel if cancel is not None else CancelToken()
    try:
        image = load_layout(store, path, platform=request.platform, cancel=token)
        return ResolvedImage(request.reference, image.descriptor().digest, image.config())
    except LaminaError as error:
        raise SourceError(
            error.what, span=request.span, kind=error.kind, hint=error.hint
        ) from error


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
    from lamina.exporter.output import Output
    from lamina.exporter.ports import make_exporter

    outputs = request.outputs or (Output(),)
    return [
        make_exporter(output, stdout=stdout, clock=clock, privileged=request.privileged)
        for output in outputs
    ]


def _platforms_exporters(
    request: BuildRequest, stdout: IO[bytes] | None, clock: Callable[[], float]
) -> list[PlatformsExporter]:
    from lamina.exporter.output import Output
    from lamina.exporter.platforms import make_platforms_exporter

    return [
        make_platforms_exporter(output, stdout=stdout, clock=clock, privileged=request.privileged)
        for output in request.outputs or (Output(),)
    ]


def lower_options(
    request: BuildRequest, *, context: str = "context", results: Results | None = None
) -> LowerOptions:
    """What lowering is told; `context` is the build context's name in the plan, `results` are those
    of the targets that were lowered before.
    """
    from lamina.dockerfile.lower import LowerOptions

    contexts: tuple[NamedContext, ...] = ()
    if request.build_contexts:
        from lamina.app.contexts import named_contexts

        contexts = named_contexts(request.build_contexts, results or {})
    return LowerOptions(
        platform=request.platform,
        build_platform=request.build_platform or request.platform,
        target=request.target,
        build_args=request.build_args,
        labels=request.labels,
        ignore=request.ignore,
        extra_hosts=request.extra_hosts,
        shm_size=request.shm_size,
        network=request.network,
        contexts=contexts,
        context=context,
        no_cache_stages=request.no_cache_filter,
        allow=request.allow,
    )
