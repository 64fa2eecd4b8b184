# SPDX-License-Identifier: Apache-2.0
"""Build an image: parse, resolve, lower, solve, export. docs/architecture.md walks through it."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError, SourceError
from lamina.events import BuildDone, Notice
from lamina.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    from lamina.app.wiring import BuildHost
    from lamina.builder.build import StepLimits
    from lamina.builder.secrets import Secrets
    from lamina.builder.sshagents import SshAgents
    from lamina.dockerfile.ast import Dockerfile
    from lamina.dockerfile.lower import ImageRequest, Lowered, LowerOptions, ResolvedImage
    from lamina.events import Emitter
    from lamina.exporter.options import Output
    from lamina.exporter.ports import Exported, Exporter, PendingExport
    from lamina.spec.digest import Digest
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

_MAX_ROUNDS = 20  # of lowering; each ONBUILD chain adds one, and nobody nests them deeper


@record
class BuildRequest:
    """What to build.

    `context` is an absolute directory (`is_lasting` False: a temporary one) and `ignore` its `.dockerignore` patterns; `dockerfile` the
    file's bytes and `dockerfile_name` how messages call it. `tags` are references as typed;
    `outputs` what to make (empty: an image in the store). `epoch` is SOURCE_DATE_EPOCH in POSIX
    seconds; `jobs` bounds the steps that run at one time (None: as many as are ready).
    `allow` are entitlements, `limits` go to each RUN, `secrets` and `agents` are for its mounts.
    `privileged` (uid 0) lets `type=local` keep owners, setuid bits and device nodes.
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
    outputs: tuple[Output, ...] = ()
    epoch: int | None = None
    jobs: int | None = None
    network: str = "default"
    extra_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int = 0
    privileged: bool = False
    allow: tuple[str, ...] = ()
    limits: StepLimits | None = None
    secrets: Secrets | None = None
    agents: SshAgents | None = None


@record
class BuildOutcome:
    """What was built: digests are None if only files were written. `ran` and `cached` count steps."""

    manifest: Digest | None
    config: Digest | None
    names: tuple[str, ...]
    ran: int
    cached: int


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
    from lamina.dockerfile.parser import parse

    names = _names(request.tags)
    exporters = _exporters(request, stdout, clock)
    dockerfile = parse(request.dockerfile, name=request.dockerfile_name)
    _warn_of_arguments(request, emit)
    with store.lease("build"):
        lowered = lower(dockerfile, _lower_options(request), store=store, emit=emit)
        return _solve_and_export(
            request, lowered, names, exporters, store, host, emit, cancel, clock
        )


_BUILDKIT_ARGS = frozenset(
    {
        "BUILDKIT_CACHE_MOUNT_NS",
        "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
        "BUILDKIT_DOCKERFILE_CHECK",
        "BUILDKIT_MULTI_PLATFORM",
        "BUILDKIT_SANDBOX_HOSTNAME",
    }
)


def _warn_of_arguments(request: BuildRequest, emit: Emitter) -> None:
    """Name the `BUILDKIT_...` arguments that mean something to BuildKit and nothing here."""
    for name, _ in request.build_args:
        if name.startswith("BUILDKIT_") and name not in _BUILDKIT_ARGS:
            emit(Notice(f"--build-arg {name} has no effect: lamina has no such setting"))


def lower(dockerfile: Dockerfile, options: LowerOptions, *, store: Store, emit: Emitter) -> Lowered:
    """Lowering, with the images it asks for looked up in the store; emits what the checks found.

    Raises:
        SourceError: as `Lowering.step`; kind NOT_FOUND, with the line, for a missing image.
    """
    from lamina.dockerfile.lower import Lowering, NeedImages

    lowering = Lowering(dockerfile, options)
    resolved: dict[tuple[str, str], ResolvedImage] = {}
    try:
        for _ in range(_MAX_ROUNDS):
            step = lowering.step(resolved)
            if not isinstance(step, NeedImages):
                return step
            for wanted in step.requests:
                resolved[wanted.key] = resolve(wanted, store)
    finally:  # with `check=error=true` findings are what the error is about
        for diagnostic in lowering.diagnostics:
            emit(diagnostic)
    raise LaminaError(
        f"ONBUILD triggers of base images are nested deeper than {_MAX_ROUNDS}",
        kind=Kind.INVALID,
    )


def resolve(request: ImageRequest, store: Store) -> ResolvedImage:
    """The stored image that `request` names. Raises SourceError (NOT_FOUND) at its line."""
    from lamina.dockerfile.lower import ResolvedImage
    from lamina.image.resolve import find_image
    from lamina.spec.reference import Reference

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


def _solve_and_export(
    request: BuildRequest,
    lowered: Lowered,
    names: tuple[str, ...],
    exporters: list[Exporter],
    store: Store,
    host: BuildHost,
    emit: Emitter,
    cancel: CancelToken,
    clock: Callable[[], float],
) -> BuildOutcome:
    from lamina.builder.build import SolveOptions, StepLimits, solve
    from lamina.builder.context import Context
    from lamina.exporter.ports import BuildResult

    with host:
        solved = solve(
            lowered.plan,
            store=store,
            contexts={"context": Context(request.context, request.is_lasting)},
            options=SolveOptions(
                no_cache=request.no_cache,
                jobs=request.jobs,
                limits=request.limits or StepLimits(),
                secrets=request.secrets,
                agents=request.agents,
            ),
            executor=host.executor,
            network=host.step_network,
            emit=emit,
            cancel=cancel,
            clock=clock,
        )
    result = BuildResult(
        solved.outputs[0],
        lowered.config,
        lowered.base_layers,
        names,
        clock(),
        request.epoch,
        solved.ran == 0,
    )
    pending: list[PendingExport] = []
    try:
        for exporter in exporters:
            export = exporter.export(result, store, emit=emit, cancel=cancel)
            pending.append(export)  # what is made so far must be known if the next one fails
    except BaseException:
        for made in pending:
            made.discard()
        raise
    # everything that can fail is done: files appear and names move now, images last of all
    exported = [export.finalize() for export in pending]
    image = _image_of(exported)
    outcome = BuildOutcome(
        image.manifest if image else None,
        image.config if image else None,
        tuple(dict.fromkeys(name for each in exported for name in each.names)),
        solved.ran,
        solved.cached,
    )
    emit(BuildDone(outcome.manifest, outcome.config, outcome.names, clock()))
    return outcome


def _image_of(exported: list[Exported]) -> Exported | None:
    return next((each for each in exported if each.config is not None), None)


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
    from lamina.exporter.options import Output
    from lamina.exporter.ports import make_exporter

    outputs = request.outputs or (Output(),)
    return [
        make_exporter(output, stdout=stdout, clock=clock, privileged=request.privileged)
        for output in outputs
    ]


def _lower_options(request: BuildRequest) -> LowerOptions:
    from lamina.dockerfile.lower import LowerOptions

    return LowerOptions(
        platform=request.platform,
        build_platform=request.platform,
        target=request.target,
        build_args=request.build_args,
        labels=request.labels,
        ignore=request.ignore,
        extra_hosts=request.extra_hosts,
        shm_size=request.shm_size,
        network=request.network,
        allow=request.allow,
    )
