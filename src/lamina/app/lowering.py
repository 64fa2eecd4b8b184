# SPDX-License-Identifier: Apache-2.0
"""A Dockerfile to a plan, with the images, URLs and git repositories that it names looked up."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError, SourceError
from lamina.events import Notice
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.app.buildrequest import BuildRequest
    from lamina.app.caches import Caches
    from lamina.app.contexts import Results
    from lamina.app.wiring import BuildHost
    from lamina.dockerfile.ast import Dockerfile
    from lamina.dockerfile.lower import ImageRequest, LowerOptions, ResolvedImage
    from lamina.dockerfile.lowered import Lowered
    from lamina.dockerfile.remotes import Answer, NamedContext, RemoteRequest
    from lamina.events import Emitter
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken, Work

_MAX_ROUNDS = 20  # of lowering; each ONBUILD chain adds one, and nobody nests them deeper
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


def warn_of_arguments(request: BuildRequest, emit: Emitter) -> None:
    """Name the `BUILDKIT_...` arguments that mean something to BuildKit and nothing here."""
    for name, _ in request.build_args:
        if name.startswith("BUILDKIT_") and name not in _BUILDKIT_ARGS:
            emit(Notice(f"--build-arg {name} has no effect: lamina has no such setting"))


def lower_parts(
    dockerfile: Dockerfile,
    options: LowerOptions,
    request: BuildRequest,
    *,
    bases: Bases,
    work: Work,
    host: BuildHost,
) -> tuple[Lowered, ...]:
    def lower_one(options: LowerOptions, emit: Emitter) -> Lowered:
        return lower(dockerfile, options, bases=bases, work=replace(work, emit=emit), host=host)

    if not request.platforms:
        return (lower_one(options, work.emit),)
    from lamina.app.platforms import lower_each

    return lower_each(options, request.platforms, lower=lower_one, emit=work.emit)


def lower(
    dockerfile: Dockerfile,
    options: LowerOptions,
    *,
    bases: Bases,
    work: Work,
    host: BuildHost | None = None,
) -> Lowered:
    """Lowering, with the images it asks for found by `bases` and URLs and git repositories
    asked by `host` (None: they are refused); emits what the checks found.

    Raises:
        SourceError: as `Lowering.step`; with the line, for an image that cannot be had.
    """
    from lamina.dockerfile.lower import Lowering, NeedRemotes
    from lamina.dockerfile.lowered import Lowered

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
                    answers[asked.key] = _ask(asked, host, work.cancel)
                continue
            for wanted in step.requests:
                resolved[wanted.key] = bases.find(wanted)
    finally:  # with `check=error=true` findings are what the error is about
        for diagnostic in lowering.diagnostics:
            work.emit(diagnostic)
    raise LaminaError(
        f"ONBUILD triggers of base images are nested deeper than {_MAX_ROUNDS}",
        kind=Kind.INVALID,
    )


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
        ulimits=request.limits.ulimits if request.limits is not None else (),
        network=request.network,
        contexts=contexts,
        context=context,
        no_cache_stages=request.no_cache_filter,
        allow=request.allow,
    )


class Bases:
    """Finds base images: in the store, else in a registry (`always`: there first)."""

    def __init__(
        self,
        store: Store,
        host: BuildHost,
        *,
        work: Work,
        always: bool = False,
        caches: Caches | None = None,
    ) -> None:
        self._caches = caches
        self._store = store
        self._host = host
        self._work = work
        self._always = always

    def find(self, request: ImageRequest) -> ResolvedImage:
        """The image. Raises SourceError at its line."""
        from lamina.dockerfile.remotes import LAYOUT

        if request.reference.startswith(LAYOUT):
            return resolve(request, self._store, self._work.cancel)
        if self._always:
            self._pull(request)
            return resolve(request, self._store, self._work.cancel)
        try:
            return resolve(request, self._store, self._work.cancel)
        except LaminaError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            known = self._caches.find_image(request) if self._caches is not None else None
            if known is not None:
                return known
            if not self._host.can_pull:
                raise
            self._pull(request, missing=error)
        return resolve(request, self._store, self._work.cancel)

    def _pull(self, request: ImageRequest, *, missing: LaminaError | None = None) -> None:
        try:
            self._host.pull(request.reference, request.platform, work=self._work)
        except LaminaError as error:
            from lamina.app.pulling import explained
            from lamina.spec.reference import Reference

            familiar = Reference.parse(request.reference).familiar()
            told = explained(error, familiar, missing=missing)
            raise SourceError(
                told.what, span=request.span, kind=told.kind, hint=told.hint
            ) from error


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
