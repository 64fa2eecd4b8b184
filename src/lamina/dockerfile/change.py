# SPDX-License-Identifier: Apache-2.0
"""`--change`: Dockerfile instructions applied to the config of an image that is not built.

The instructions are lowered as in a Dockerfile, on a base that has the config, so they mean
exactly the same; only those that change nothing but the config are let through.
"""

from __future__ import annotations

from lamina.dockerfile import ast
from lamina.dockerfile.lower import Lowering, LowerOptions, NeedImages, ResolvedImage
from lamina.dockerfile.lowered import Lowered
from lamina.dockerfile.parser import parse
from lamina.errors import Kind, LaminaError, SourceError
from lamina.spec.config import ImageConfig
from lamina.spec.digest import Digest
from lamina.spec.platform import Platform
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.spec.config import RunConfig

_ALLOWED = (
    ast.Cmd,
    ast.Entrypoint,
    ast.Env,
    ast.Expose,
    ast.HealthCheck,
    ast.Label,
    ast.OnBuild,
    ast.StopSignal,
    ast.User,
    ast.Volume,
    ast.Workdir,
)
_NAMES = (
    "CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR"
)
_BASE = "base"
_PLATFORM = Platform("linux", "amd64")  # nothing that is allowed depends on it


class InvalidChange(LaminaError):
    kind = Kind.INVALID


def apply_changes(config: RunConfig, changes: Sequence[str]) -> RunConfig:
    """`config` after the instructions, in order; later ones see the variables of earlier ones.

    Raises:
        InvalidChange: an instruction is malformed or not one of those that `--change` takes.
    """
    for change in changes:
        try:
            config = _apply(config, change)
        except SourceError as error:
            raise InvalidChange(
                f"invalid change {change!r}: {error.what}", hint=error.hint
            ) from error
    return config


def _apply(config: RunConfig, change: str) -> RunConfig:
    text = f"FROM {_BASE}\n{change}\n".encode("utf-8", "surrogateescape")
    dockerfile = parse(text, name="--change")
    if len(dockerfile.stages) != 1 or not dockerfile.stages[0].commands:
        raise InvalidChange(f"invalid change {change!r}: expected one of {_NAMES}")
    for command in dockerfile.stages[0].commands:
        if not isinstance(command, _ALLOWED):
            raise InvalidChange(
                f"invalid change {change!r}: {command.keyword.upper()} is not allowed here",
                hint=f"allowed: {_NAMES}",
            )
    lowered = _lower(dockerfile, config)
    env = lowered.env
    if "PATH" not in dict(config.env) and not _sets(dockerfile, "PATH"):
        env = tuple(pair for pair in env if pair[0] != "PATH")  # a build's default, not a change
    return replace(lowered, env=env, on_build=(*config.on_build, *lowered.on_build))


def _sets(dockerfile: ast.Dockerfile, name: str) -> bool:
    return any(
        pair.name == name
        for command in dockerfile.stages[0].commands
        if isinstance(command, ast.Env)
        for pair in command.pairs
    )


def _lower(dockerfile: ast.Dockerfile, config: RunConfig) -> RunConfig:
    """The config after the stage; triggers of the base stay out of it, as they wait for a build."""
    base = ImageConfig(_PLATFORM.architecture, _PLATFORM.os, config=replace(config, on_build=()))
    lowering = Lowering(dockerfile, LowerOptions(platform=_PLATFORM))
    step = lowering.step({})
    if isinstance(step, NeedImages):
        answers = {
            request.key: ResolvedImage(request.reference, Digest.of(b""), base)
            for request in step.requests
        }
        step = lowering.step(answers)
    assert isinstance(step, Lowered)
    return step.config.config
