# SPDX-License-Identifier: Apache-2.0
"""From syntax tree to plan and image config (`Lowering`), after BuildKit's `dockerfile2llb`.

Lowering is pure and asks for what it does not know: `step` returns `NeedImages` until every image
that the target needs is in `resolved`, then `Lowered`. Each call begins anew (it takes about a
millisecond), so there is no state to go wrong between calls. An image may bring ONBUILD triggers
that copy from further images: then a later step asks again.
"""

from __future__ import annotations

__all__ = [
    "ImageRequest",
    "LowerOptions",
    "Lowering",
    "NeedImages",
    "NeedRemotes",
    "ResolvedImage",
]

from lamina.dockerfile import ast
from lamina.dockerfile.bases import SCRATCH, Bases, BuildStage, ImageRequest, LowerOptions
from lamina.dockerfile.checks import Checker, CheckOptions, check_file
from lamina.dockerfile.lowered import Lowered
from lamina.dockerfile.operands import check_text, is_plain, refuse_flags
from lamina.dockerfile.parser import parse_trigger
from lamina.dockerfile.remotes import Remotes
from lamina.dockerfile.stage import (
    DEFAULT_PATH,
    BuildScope,
    StageState,
    Step,
    Vertices,
)
from lamina.errors import Kind, LaminaError, SourceError
from lamina.plan.graph import Edge, VertexMeta, needed
from lamina.plan.ops import CopyAction, FileOp, ImageSource, LocalSource
from lamina.spec.config import ImageConfig, RunConfig
from lamina.spec.platform import Platform
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lamina.dockerfile.remotes import Answers, NamedContext, RemoteRequest
    from lamina.events import Diagnostic
    from lamina.spec.digest import Digest
    from lamina.spec.span import Span

    Resolved = Mapping[tuple[str, str], "ResolvedImage"]

_CHECK_ARG = "BUILDKIT_DOCKERFILE_CHECK"


class ResolvedImage(Record):
    """The answer: the manifest that `reference` points to for the platform, and its config."""

    reference: str
    manifest: Digest
    config: ImageConfig


class NeedImages(Record):
    """Lowering cannot go on without these; independent of each other, in file order."""

    requests: tuple[ImageRequest, ...]


class NeedRemotes(Record):
    """Lowering cannot go on without knowing these URLs and repositories; in file order.

    `draft` is what comes out if they are left out: enough for checks and outlines.
    """

    requests: tuple[RemoteRequest, ...]
    draft: Lowered


class SourceTree(Record):
    """What `COPY --from` or a mount names: a stage, an image, a named context, or (all None)
    nothing at all.
    """

    stage: int | None = None
    request: ImageRequest | None = None
    context: NamedContext | None = None


class Lowering:
    """Lowers one Dockerfile for one platform.

    Raises:
        SourceError: kind INVALID or UNSUPPORTED, pointing at the line.
        LaminaError: kind NOT_FOUND for a target that does not exist, USAGE for a build argument
            that is not text.
    """

    def __init__(self, dockerfile: ast.Dockerfile, options: LowerOptions) -> None:
        self._file = dockerfile
        self._options = options
        self._build_args = dict(options.build_args)
        for name, value in (*options.build_args, *options.labels):
            if not is_plain(name) or not is_plain(value):
                raise LaminaError(
                    f"build argument or label {name!r} holds a NUL or bytes that are not UTF-8",
                    kind=Kind.USAGE,
                )
        self._check_options = self._parse_check_options()
        self._checker = Checker(self._check_options)
        check_file(dockerfile, self._checker)
        self._bases = Bases(dockerfile, options, self._checker)
        self._stages = self._bases.stages
        self._target = self._bases.target
        self._named: dict[str, list[int]] = {}  # name -> the stages that have it, in order
        for stage in self._stages:
            self._named.setdefault(stage.node.start.name, []).append(stage.node.index)

    @property
    def target(self) -> int:
        """The number of the target stage."""
        return self._target

    @property
    def global_env(self) -> Mapping[str, str]:
        """The environment of FROM: predefined arguments and the ARGs before the first FROM."""
        return self._bases.global_env

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """The findings so far: those of the text alone before the last step, all after it."""
        return self._checker.diagnostics

    def step(
        self, resolved: Resolved, answers: Answers | None = None
    ) -> NeedImages | NeedRemotes | Lowered:
        """Go as far as `resolved` and `answers` allow; their keys are those of the requests."""
        steps, requests = self._reach(resolved)
        if requests:
            return NeedImages(tuple(requests.values()))
        remotes = Remotes(answers or {})
        lowered = self._lower(steps, resolved, remotes)
        if remotes.missing:
            return NeedRemotes(tuple(remotes.missing.values()), lowered)
        self._checker.raise_if_asked()
        return lowered

    def _parse_check_options(self) -> CheckOptions:
        directive = self._file.directive("check")
        given = self._build_args.get(_CHECK_ARG)
        if given is not None:
            return CheckOptions.parse(given, span=directive.span if directive else None)
        if directive is None:
            return CheckOptions()
        return CheckOptions.parse(directive.value, span=directive.span)

    # -- which stages and images the target needs

    def _reach(
        self, resolved: Resolved
    ) -> tuple[dict[int, list[Step]], dict[tuple[str, str], ImageRequest]]:
        """The instructions of every stage needed, and the images that are missing."""
        steps: dict[int, list[Step]] = {}
        requests: dict[tuple[str, str], ImageRequest] = {}

        def want(request: ImageRequest) -> None:
            if request.key not in resolved:
                requests.setdefault(request.key, request)

        todo = [self._target]
        if self._options.all_stages:
            todo += range(len(self._stages))
        while todo:
            index = todo.pop()
            if index in steps:
                continue
            stage = self._stages[index]
            refuse_flags(stage.node.start)
            if stage.parent is not None:
                todo.append(stage.parent)
            elif stage.request is not None:
                want(stage.request)
            steps[index] = self._steps(stage, resolved)
            for step in steps[index]:
                check_text(step.command)
                for copied in (self._copied(step, index), *self._mounted(step, index)):
                    if copied is not None and copied.stage is not None:
                        todo.append(copied.stage)
                    elif copied is not None and copied.request is not None:
                        want(copied.request)
        ordered = sorted(requests.values(), key=lambda request: request.span.start)
        return dict(sorted(steps.items())), {request.key: request for request in ordered}

    def _steps(self, stage: BuildStage, resolved: Resolved) -> list[Step]:
        """The base's triggers, then the stage's own instructions."""
        if stage.is_replaced:
            return []
        triggers: list[ast.Command] = []
        if stage.parent is not None:
            parent = self._stages[stage.parent]
            triggers = [
                _placed(command.trigger, stage.node.start.span)
                for command in (() if parent.is_replaced else parent.node.commands)
                if isinstance(command, ast.OnBuild)
            ]
        else:
            stored: tuple[str, ...] = ()
            if stage.request is not None and stage.request.key in resolved:
                stored = resolved[stage.request.key].config.config.on_build
            elif stage.context is not None and stage.context.results:
                stored = self._result(stage, stage.context).config.config.on_build
            triggers = [self._parse_trigger(text, stage) for text in stored]
        own = [Step(command) for command in stage.node.commands]
        return [*(Step(command, trigger=True) for command in triggers), *own]

    def _result(self, stage: BuildStage, context: NamedContext) -> Lowered:
        platform = stage.platform or self._options.platform
        return context.result(platform, stage.node.start.span)

    def _parse_trigger(self, text: str, stage: BuildStage) -> ast.Command:
        span = stage.node.start.span
        try:
            if not is_plain(text):
                raise SourceError("not UTF-8", span=span)
            return _placed(parse_trigger(text), span)
        except SourceError as error:
            raise SourceError(
                f"ONBUILD trigger {text!r} of {stage.original}: {error.what}",
                span=span,
                kind=error.kind,
            ) from error

    def _copied(self, step: Step, index: int) -> SourceTree | None:
        """What the instruction copies from; None for the build context or no COPY at all."""
        command = step.command
        text = command.flag("from") if isinstance(command, ast.Copy) else None
        if not text:
            return None
        if "$" in text:
            raise SourceError(
                "variable expansion is not supported for --from, define a new stage with FROM "
                "using ARG from global scope as a workaround",
                span=command.span,
                hint=f"give the image a name with `FROM {text} AS name` and copy from that",
            )
        return self._find_source(text, index, command)

    def _mounted(self, step: Step, index: int) -> tuple[SourceTree | None, ...]:
        """What each `--mount` of a RUN takes its files from; None where it has no `from`."""
        if not any(flag.name == "mount" for flag in step.command.flags):
            return ()
        from lamina.dockerfile.runmounts import mount_flags, named_source

        names = map(named_source, mount_flags(step.command))
        return tuple(
            self._find_source(name, index, step.command) if name else None for name in names
        )

    def _find_source(self, text: str, index: int, command: ast.Command) -> SourceTree:
        """What `--from=text` (or `from=text` of a mount) means in stage `index`: a stage's number
        or name, a named context, `scratch`, or an image. Raises SourceError.
        """
        if text.isascii() and text.isdigit():
            number = int(text[:9])
            if number >= len(self._stages):
                raise SourceError(f"invalid stage index {text}", span=command.span)
            return self._earlier(number, index, text, command)
        same = self._named.get(text.lower())
        if same:
            before = [number for number in same if number < index]
            return self._earlier((before or same)[-1], index, text, command)
        if text == SCRATCH:
            return SourceTree()
        context = self._bases.context(text)
        if context is not None and context.image == SCRATCH:
            return SourceTree()
        if context is not None and context.image:
            return SourceTree(request=self._bases.context_request(context, command.span, None))
        if context is not None:
            return SourceTree(context=context)
        what = "COPY --from" if isinstance(command, ast.Copy) else "from of a mount"
        return SourceTree(request=self._bases.request(text, command.span, None, what=what))

    def _earlier(self, number: int, index: int, text: str, command: ast.Command) -> SourceTree:
        if number >= index:
            raise SourceError(
                f'cannot copy from stage "{text}", it needs to be defined before current stage '
                f'"{self._stages[index].shown()}"',
                span=command.span,
            )
        return SourceTree(stage=number)

    # -- all images are known

    def _lower(self, steps: dict[int, list[Step]], resolved: Resolved, remotes: Remotes) -> Lowered:
        scope = self._scope(remotes)
        chain = self._chain()
        no_cache = {name.lower() for name in self._options.no_cache_stages if name}
        states: dict[int, StageState] = {}
        for index, own in steps.items():
            stage = self._stages[index]
            name = "" if self._is_alone(own) else stage.shown()
            state = StageState(
                scope,
                name=name,
                exported=index in chain,
                ignore_cache=stage.node.start.name in no_cache,
            )
            state.total = sum(_is_numbered(step.command) for step in own)
            self._start(state, stage, states, resolved)
            for step in own:
                state.lower(self._with_source(step, index, scope, states, resolved))
            states[index] = state
        target = states[self._target]
        return Lowered(
            plan=needed(scope.vertices.all(), [target.edge]),
            config=target.image_config(self._options.labels),
            base_layers=target.base_layers,
            layers=target.layers,
            diagnostics=scope.checker.diagnostics,
            stages=tuple(steps),
            arguments={index: state.args for index, state in states.items()},
        )

    def _scope(self, remotes: Remotes) -> BuildScope:
        options = self._options
        return BuildScope(
            escape=self._file.escape,
            platform=options.platform,
            build_args=self._build_args,
            global_env=self._bases.global_env,
            ignore=options.ignore,
            extra_hosts=options.extra_hosts,
            shm_size=options.shm_size,
            ulimits=options.ulimits,
            network=options.network,
            several_platforms=options.several_platforms,
            context=options.context,
            allow=options.allow,
            vertices=Vertices(),
            checker=self._checker,
            remotes=remotes,
        )

    def _chain(self) -> frozenset[int]:
        """The target and the stages it stands on: their layers are in the image."""
        chain = set()
        index: int | None = self._target
        while index is not None:
            chain.add(index)
            index = self._stages[index].parent
        return frozenset(chain)

    def _is_alone(self, steps: Iterable[Step]) -> bool:
        """Whether names need no stage: BuildKit counts what COPY and mounts name as stages."""
        return len(self._stages) == 1 and not any(
            self._copied(step, 0) or self._mounted(step, 0) for step in steps
        )

    def _start(
        self,
        state: StageState,
        stage: BuildStage,
        states: Mapping[int, StageState],
        resolved: Resolved,
    ) -> None:
        if stage.parent is not None:
            state.start_from_stage(states[stage.parent])
            return
        if stage.request is None:
            state.start_from(_empty_image(self._options.platform), None)
            if stage.context is not None and stage.context.results:
                self._start_from_result(state, stage, self._result(stage, stage.context))
            elif stage.context is not None:
                self._start_from_context(state, stage, stage.context)
            return
        state.total += 1
        state.platform = stage.request.platform
        image = resolved[stage.request.key]
        _require_plain_config(image.config, stage)
        self._check_base_platform(stage, stage.request.platform, image.config)
        edge = None
        if image.config.diff_ids:
            meta = VertexMeta(
                name=state.title(f"FROM {stage.request.reference}"),
                stage=state.name,
                span=stage.node.start.span,
            )
            edge = _image_edge(state.scope.vertices, stage.request, image, meta)
        state.start_from(image.config, edge)

    def _start_from_result(self, state: StageState, stage: BuildStage, result: Lowered) -> None:
        """FROM of another target of the bake: its files, config and history go on here."""
        state.platform = stage.platform or self._options.platform
        state.start_from(result.config, state.scope.vertices.include(result.plan))
        state.base_layers = result.base_layers
        state.layers = result.layers

    def _start_from_context(
        self, state: StageState, stage: BuildStage, context: NamedContext
    ) -> None:
        """FROM of a named context that is a tree: one layer with all of it."""
        state.total += 1
        span = stage.node.start.span
        what = f"FROM context {context.name}"
        meta = VertexMeta(state.title(what), state.name, span, state.exported)
        tree = _context_edge(state.scope.vertices, context)
        op = FileOp((CopyAction(1, (".",), "/"),))
        state.layers += 1
        state.edge = state.scope.vertices.add(op, (None, tree), meta)
        state.add_history(what, layer=True)

    def _check_base_platform(
        self, stage: BuildStage, wanted: Platform, config: ImageConfig
    ) -> None:
        if (config.os, config.architecture) == (wanted.os, wanted.architecture):
            return
        actual = "/".join(part for part in (config.os, config.architecture, config.variant) if part)
        self._checker.report(
            "InvalidBaseImagePlatform",
            f'Base image {stage.original} was pulled with platform "{actual}", '
            f'expected "{wanted}" for current build',
            stage.node.start.span,
        )

    def _with_source(
        self,
        step: Step,
        index: int,
        scope: BuildScope,
        states: Mapping[int, StageState],
        resolved: Resolved,
    ) -> Step:
        """The step with the edges that its COPY --from or its mounts name."""

        def edge_of(named: SourceTree) -> Edge | None:
            if named.stage is not None:
                return states[named.stage].edge
            if named.context is not None and named.context.results:
                result = named.context.result(self._options.platform, step.command.span)
                return scope.vertices.include(result.plan)
            if named.context is not None:
                return _context_edge(scope.vertices, named.context)
            if named.request is None:
                return None
            image = resolved[named.request.key]
            if not image.config.diff_ids:
                return None
            name = f"FROM {named.request.reference}"
            meta = VertexMeta(name, span=step.command.span)
            return _image_edge(scope.vertices, named.request, image, meta)

        copied = self._copied(step, index)
        if copied is not None:
            edge = edge_of(copied)
            return replace(step, source=edge, empty_source=edge is None)
        mounted = self._mounted(step, index)
        if not mounted:
            return step
        from lamina.dockerfile.runmounts import MountSource

        sources = tuple(
            MountSource(None if named is None else edge_of(named), named is not None)
            for named in mounted
        )
        return replace(step, mount_sources=sources)


def _image_edge(
    vertices: Vertices, request: ImageRequest, image: ResolvedImage, meta: VertexMeta
) -> Edge:
    op = ImageSource(image.reference, image.manifest, image.config.diff_ids, str(request.platform))
    return vertices.add(op, (), meta)


def _context_edge(vertices: Vertices, context: NamedContext) -> Edge:
    meta = VertexMeta(f"[context {context.name}] load from client")
    return vertices.add(LocalSource(context.tree or context.name, context.ignore), (), meta)


def _is_numbered(command: ast.Command) -> bool:
    """Whether the instruction counts in `2/4`."""
    return isinstance(command, ast.Run | ast.Copy | ast.Workdir)


def _placed(command: ast.Command, span: Span) -> ast.Command:
    """A trigger shows the FROM that brought it, as its own text is in no file of this build."""
    flags = tuple(replace(flag, span=span) for flag in command.flags)
    return replace(command, span=span, flags=flags)


def _empty_image(platform: Platform) -> ImageConfig:
    """The config of `FROM scratch`, as BuildKit makes it."""
    return ImageConfig(
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        os_version=platform.os_version,
        config=RunConfig(env=(("PATH", DEFAULT_PATH),), working_dir="/"),
    )


def _require_plain_config(config: ImageConfig, stage: BuildStage) -> None:
    """The base's values end up in the plan, which can hold text only."""
    run = config.config
    texts = [text for pair in run.env for text in pair]
    texts += [run.user, run.working_dir, *(run.shell or ())]
    if not all(map(is_plain, texts)):
        raise SourceError(
            f"the config of {stage.original} holds a NUL or text that is not Unicode",
            span=stage.node.start.span,
        )
