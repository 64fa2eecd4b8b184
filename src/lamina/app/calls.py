# SPDX-License-Identifier: Apache-2.0
"""Questions about a Dockerfile that build nothing: check, outline, targets.

A base image that is not in the store is no error here. It counts as empty, and findings that
depend on what it really holds are left out; `Checked.missing` names it.
"""

from __future__ import annotations

from lamina.app.lowering import lower_options, resolve
from lamina.dockerfile import outline as outlines
from lamina.dockerfile.expand import expand
from lamina.dockerfile.lower import Lowering, NeedImages, NeedRemotes, ResolvedImage
from lamina.dockerfile.outline import targets as list_targets
from lamina.dockerfile.parser import parse
from lamina.errors import Kind, LaminaError, SourceError
from lamina.spec.config import ImageConfig
from lamina.spec.digest import Digest
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.app.buildrequest import BuildRequest
    from lamina.dockerfile.ast import Dockerfile
    from lamina.dockerfile.lower import ImageRequest, LowerOptions
    from lamina.dockerfile.lowered import Lowered
    from lamina.dockerfile.outline import Outline, Target
    from lamina.events import Diagnostic
    from lamina.store.ports import Store

_NEEDS_BASE = frozenset({"UndefinedVar"})  # an image may set the variable
_MAX_ROUNDS = 20


class Checked(Record):
    """Findings in file order, the error that would stop a build (if any), bases not found."""

    warnings: tuple[Diagnostic, ...]
    error: LaminaError | None
    missing: tuple[str, ...]


def check(request: BuildRequest, store: Store) -> Checked:
    """Run every check: on the target and what it needs, or on all stages if none is named."""
    missing: list[str] = []
    try:
        dockerfile = parse(request.dockerfile, name=request.dockerfile_name)
        options = replace(_options(request), all_stages=not request.target)
        lowering = Lowering(dockerfile, options)
    except SourceError as failure:
        return Checked((), failure, ())
    error: LaminaError | None = None
    try:
        _lower(lowering, store, missing)
    except SourceError as failure:
        error = failure
    found = [
        diagnostic
        for diagnostic in lowering.diagnostics
        if not (missing and diagnostic.rule in _NEEDS_BASE)
    ]
    found.sort(key=lambda diagnostic: diagnostic.span.start if diagnostic.span else 0)
    return Checked(tuple(found), error, tuple(dict.fromkeys(missing)))


def outline(request: BuildRequest, store: Store) -> Outline:
    """The parameters of the target. Raises SourceError; LaminaError (NOT_FOUND) for the target."""
    dockerfile = parse(request.dockerfile, name=request.dockerfile_name)
    lowering = Lowering(dockerfile, _options(request))
    lowered = _lower(lowering, store, [])
    return outlines.outline(
        dockerfile,
        target=lowering.target,
        stages=lowered.stages,
        global_values=lowering.global_env,
        stage_values=lowered.arguments,
        used_in_from=_used_in_from(dockerfile, lowered),
    )


def targets(request: BuildRequest) -> tuple[Target, ...]:
    """The stages. Raises SourceError."""
    return list_targets(parse(request.dockerfile, name=request.dockerfile_name))


def _options(request: BuildRequest) -> LowerOptions:
    return lower_options(request)


def _lower(lowering: Lowering, store: Store, missing: list[str]) -> Lowered:
    resolved: dict[tuple[str, str], ResolvedImage] = {}
    for _ in range(_MAX_ROUNDS):
        step = lowering.step(resolved)
        if isinstance(step, NeedRemotes):
            return step.draft  # nothing is fetched to look at a Dockerfile
        if not isinstance(step, NeedImages):
            return step
        for wanted in step.requests:
            try:
                resolved[wanted.key] = resolve(wanted, store)
            except LaminaError as error:
                if error.kind is not Kind.NOT_FOUND:
                    raise
                resolved[wanted.key] = _unknown(wanted)
                missing.append(wanted.reference)
    raise LaminaError("ONBUILD triggers are nested too deep", kind=Kind.INVALID)


def _unknown(wanted: ImageRequest) -> ResolvedImage:
    """An image of which nothing is known."""
    platform = wanted.platform
    config = ImageConfig(platform.architecture, platform.os, variant=platform.variant)
    return ResolvedImage(wanted.reference, Digest.of(b""), config)


def _used_in_from(dockerfile: Dockerfile, lowered: Lowered) -> set[str]:
    """Names of the ARGs before FROM that the needed FROMs expand, and those behind them."""
    declared = {name: default for arg in dockerfile.global_args for name, default in arg.args}
    env = dict.fromkeys(declared, "x")
    used: set[str] = set()
    todo: list[str] = []
    for index in lowered.stages:
        start = dockerfile.stages[index].start
        todo += [start.base, start.flag("platform") or ""]
    while todo:
        for name in expand(todo.pop(), env, escape=dockerfile.escape).used:
            if name in declared and name not in used:
                used.add(name)
                todo.append(declared[name] or "")
    return used
