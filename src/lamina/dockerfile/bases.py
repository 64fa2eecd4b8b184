# SPDX-License-Identifier: Apache-2.0
"""FROM: what each stage stands on, after the ARGs before the first FROM are known."""

from __future__ import annotations

from lamina.dockerfile import ast
from lamina.dockerfile.expand import BadExpansion, Expansion, expand
from lamina.dockerfile.operands import is_plain
from lamina.errors import Kind, LaminaError, SourceError
from lamina.spec.platform import Platform
from lamina.spec.reference import Reference
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina.dockerfile.checks import Checker
    from lamina.dockerfile.remotes import NamedContext
    from lamina.spec.span import Span

SCRATCH = "scratch"


class LowerOptions(Record):
    """What the command line says. `ignore` are the `.dockerignore` patterns of the context.

    `target` is a stage's name or number (empty: the last); `network`, `extra_hosts` (name,
    address), `shm_size` (bytes) and `ulimits` (name, soft, hard) go to every RUN. `contexts` are those of
    --build-context: they come before stages and images of their names. `context` names the build context in the plan.
    The steps of `no_cache_stages` (names, any case) ignore the cache. With `all_stages` every stage
    is lowered, needed or not, so that the checks see all of them. `allow` are the entitlements
    granted: `network.host`, `security.insecure`. `several_platforms`: this is one of several
    lowerings of the file, so the names of steps say the platform.
    """

    platform: Platform
    build_platform: Platform | None = None
    target: str = ""
    build_args: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    ignore: tuple[str, ...] = ()
    extra_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int = 0
    ulimits: tuple[tuple[str, int, int], ...] = ()
    network: str = "default"
    several_platforms: bool = False
    contexts: tuple[NamedContext, ...] = ()
    context: str = "context"
    no_cache_stages: tuple[str, ...] = ()
    all_stages: bool = False
    allow: tuple[str, ...] = ()


class ImageRequest(Record):
    """An image whose config is needed; `reference` is normalised, with tag or digest."""

    reference: str
    platform: Platform
    span: Span

    @property
    def key(self) -> tuple[str, str]:
        """The key of the answer in `resolved`."""
        return (self.reference, str(self.platform))


class BuildStage(Record):
    """A stage with its FROM understood: `parent` is the stage it stands on, else `request` is its
    image, or `context` the named context that is its tree (None of them: scratch). `original` is
    the base's name after expansion. `is_replaced`: a named context stands for the whole stage, whose
    instructions do not count.
    """

    node: ast.Stage
    original: str
    parent: int | None
    request: ImageRequest | None
    platform: Platform | None
    context: NamedContext | None = None
    is_replaced: bool = False

    def shown(self) -> str:
        return self.node.start.name or f"stage-{self.node.index}"


class Bases:
    """The stages of a file with their FROMs understood, for the options of one build.

    `global_env` is the environment of FROM, `platform_env` its predefined part, `declared` the
    names of the ARGs before the first FROM, `target` the index of the stage wanted.

    Raises:
        SourceError: a FROM or a global ARG cannot be understood.
        LaminaError: kind NOT_FOUND for a target that does not exist.
    """

    def __init__(self, dockerfile: ast.Dockerfile, options: LowerOptions, checker: Checker) -> None:
        self._file = dockerfile
        self._options = options
        self._checker = checker
        self._build_args = dict(options.build_args)
        self.declared = {name for arg in dockerfile.global_args for name, _ in arg.args}
        self.platform_env = self._platform_args()
        self.global_env = self._global_args(self._build_args)
        self.stages = self._resolve_stages()
        self._check_default_bases()
        self.target = self._find_target(options.target)

    def _platform_args(self) -> dict[str, str]:
        """The predefined platform ARGs (Dockerfile reference §Automatic platform ARGs)."""
        env: dict[str, str] = {}
        target = self._options.platform
        for prefix, platform in (
            ("BUILD", self._options.build_platform or target),
            ("TARGET", target),
        ):
            env[f"{prefix}PLATFORM"] = str(platform)
            env[f"{prefix}OS"] = platform.os
            env[f"{prefix}OSVERSION"] = platform.os_version
            env[f"{prefix}ARCH"] = platform.architecture
            env[f"{prefix}VARIANT"] = platform.variant
        last = self._file.stages[-1].start.name
        env["TARGETSTAGE"] = self._options.target or last or "default"
        return {name: self._build_args.get(name, value) for name, value in env.items()}

    def _global_args(self, build_args: Mapping[str, str]) -> dict[str, str]:
        """The environment of FROM: platform ARGs and those before the first FROM."""
        env = dict(self.platform_env)
        for arg in self._file.global_args:
            _require_plain(arg)
            for flag in arg.flags:
                raise SourceError(f"unknown flag: ARG --{flag.name}", span=flag.span)
            for name, default in arg.args:
                value = build_args.get(name)
                if value is None and default is not None:
                    value = self._expand(default, env, arg).text
                if value is not None:
                    env[name] = value
        return env

    def _expand(self, text: str, env: Mapping[str, str], node: ast.Instruction) -> Expansion:
        try:
            return expand(text, env, escape=self._file.escape)
        except BadExpansion as error:
            raise SourceError(
                f"failed to process {text!r}: {error.what}", span=node.span, kind=error.kind
            ) from error

    def _resolve_stages(self) -> tuple[BuildStage, ...]:
        stages: list[BuildStage] = []
        names: dict[str, int] = {}
        for node in self._file.stages:
            start = node.start
            _require_plain(start)
            found = self._expand(start.base, self.global_env, start)
            known = [*self.global_env, *self.declared]
            self._checker.undefined_from_args(found.missing, known, start.span)
            if not found.text:
                raise SourceError(
                    f"base name ({start.base}) should not be blank",
                    span=start.span,
                    hint="set the ARG it comes from, before the first FROM or with --build-arg",
                )
            platform = self._stage_platform(start)
            parent = names.get(found.text.lower())
            replacement = self.context(start.name) if start.name else None
            context = replacement
            if replacement is not None:
                parent = None
            elif parent is None and found.text != SCRATCH:
                context = self.context(found.text)
            request = None
            if context is not None and context.image not in {"", SCRATCH}:
                request = self.context_request(context, start.span, platform)
            elif parent is None and found.text != SCRATCH and context is None:
                request = self.request(found.text, start.span, platform, what="base image")
            tree = context if context is not None and not context.image else None
            stages.append(
                BuildStage(
                    node,
                    found.text,
                    parent,
                    request,
                    platform,
                    context=tree,
                    is_replaced=replacement is not None,
                )
            )
            if start.name:
                names[start.name] = node.index
        return tuple(stages)

    def _stage_platform(self, start: ast.From) -> Platform | None:
        text = start.flag("platform")
        if text is None:
            return None
        found = self._expand(text, self.global_env, start)
        known = [*self.global_env, *self.declared]
        self._checker.undefined_from_args(found.missing, known, start.span)
        target = self.global_env["TARGETPLATFORM"]
        if found.used == ("TARGETPLATFORM",) and not found.missing and found.text == target:
            self._checker.report(
                "RedundantTargetPlatform",
                f"Setting platform to predefined {text} in FROM is redundant "
                "as this is the default behavior",
                start.span,
            )
        if not found.text:
            raise SourceError(f"empty platform value from expression {text}", span=start.span)
        try:
            platform = Platform.parse(found.text)
        except LaminaError as error:
            raise SourceError(
                f"failed to parse platform {text}: {error.what}", span=start.span
            ) from error
        if not found.used and not found.missing:
            self._check_constant_platform(start, found.text, platform)
        return platform

    def _check_constant_platform(self, start: ast.From, text: str, platform: Platform) -> None:
        if platform.os in start.name or platform.architecture in start.name:
            return
        self._checker.report(
            "FromPlatformFlagConstDisallowed",
            f'FROM --platform flag should not use constant value "{text}"',
            start.span,
        )

    def request(
        self, text: str, span: Span, platform: Platform | None, *, what: str
    ) -> ImageRequest:
        """The request for an image by the name as written. Raises SourceError."""
        try:
            reference = Reference.parse(text).with_default_tag()
        except LaminaError as error:
            raise SourceError(f"invalid {what} {text!r}: {error.what}", span=span) from error
        return ImageRequest(str(reference), platform or self._options.platform, span)

    def context(self, text: str) -> NamedContext | None:
        """The named context that a name of the Dockerfile means, if there is one."""
        if not self._options.contexts:
            return None
        try:
            name = context_name(text)
        except LaminaError:
            return None  # no reference: no context can have this name
        found = [context for context in self._options.contexts if context.name == name]
        return found[-1] if found else None

    def context_request(
        self, context: NamedContext, span: Span, platform: Platform | None
    ) -> ImageRequest:
        """The request for the image behind a named context."""
        return ImageRequest(context.image, platform or self._options.platform, span)

    def _check_default_bases(self) -> None:
        """InvalidDefaultArgInFrom: the base names as they are without any --build-arg."""
        if not self._file.global_args or not self._checker.wants("InvalidDefaultArgInFrom"):
            return
        try:
            env = self._global_args({})
            bases = [self._expand(s.node.start.base, env, s.node.start).text for s in self.stages]
        except SourceError:
            return  # no default at all, perhaps `${v:?needed}`: nothing to check
        for stage, base in zip(self.stages, bases, strict=True):
            try:
                Reference.parse(base)
            except LaminaError:
                start = stage.node.start
                self._checker.report(
                    "InvalidDefaultArgInFrom",
                    f"Default value for ARG {start.base} results in empty or invalid "
                    "base image name",
                    start.span,
                )

    def _find_target(self, target: str) -> int:
        if not target:
            return len(self.stages) - 1
        found = [s.node.index for s in self.stages if s.node.start.name == target.lower()]
        if found:
            return found[-1]
        if target.isascii() and target.isdigit() and int(target[:9]) < len(self.stages):
            return int(target[:9])
        names = [stage.node.start.name for stage in self.stages if stage.node.start.name]
        raise LaminaError(
            f'target stage "{target}" could not be found in {self._file.source.name}',
            kind=Kind.NOT_FOUND,
            hint=f"its stages are {', '.join(names)}" if names else "none of its stages has a name",
        )


def context_name(text: str) -> str:
    """The name of a context as --build-context and FROM are compared: `alpine` for
    `docker.io/library/alpine:latest`. Raises InvalidReference.
    """
    return Reference.parse(text).familiar().removesuffix(":latest")


def _require_plain(node: ast.Instruction) -> None:
    if not is_plain(node.text):
        raise SourceError(
            f"{node.keyword.upper()} holds a NUL or bytes that are not UTF-8", span=node.span
        )
