# SPDX-License-Identifier: Apache-2.0
"""What a Dockerfile offers: its targets, and the parameters that one target takes.

After BuildKit's `ListTargets` and `Outline` (docker build --call=targets|outline).
"""

from __future__ import annotations

from lamina.dockerfile import ast
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lamina.spec.span import Span


class Target(Record):
    """A stage as a target: `base` as written, `platform` the flag's text."""

    name: str
    description: str
    is_default: bool
    base: str
    platform: str
    span: Span


class BuildArgument(Record):
    """An ARG that the target uses, with the value that it has without more flags."""

    name: str
    description: str
    value: str
    span: Span


class MountedSecret(Record):
    """A secret or ssh agent that a RUN of the target mounts."""

    name: str
    is_required: bool
    span: Span


class Outline(Record):
    """The parameters of a target, in file order."""

    name: str
    description: str
    arguments: tuple[BuildArgument, ...]
    secrets: tuple[MountedSecret, ...]
    agents: tuple[MountedSecret, ...]


def targets(dockerfile: ast.Dockerfile) -> tuple[Target, ...]:
    """Every stage, in order; the last is the default."""
    last = len(dockerfile.stages) - 1
    return tuple(
        Target(
            stage.start.name,
            describe(stage.start.comments, stage.start.name),
            stage.index == last,
            stage.start.base,
            stage.start.flag("platform") or "",
            stage.start.span,
        )
        for stage in dockerfile.stages
    )


def outline(
    dockerfile: ast.Dockerfile,
    *,
    target: int,
    stages: Sequence[int],
    global_values: Mapping[str, str],
    stage_values: Mapping[int, Mapping[str, str | None]],
    used_in_from: Iterable[str],
) -> Outline:
    """The outline of stage `target`, which needs `stages` (itself included).

    `global_values` are those of the ARGs before FROM, `stage_values` those at the end of each
    stage; `used_in_from` names what the needed stages' FROMs expand.
    """
    found: dict[str, BuildArgument] = {}
    used = set(used_in_from)
    own: dict[str, BuildArgument] = {}
    before: dict[str, BuildArgument] = {}
    for arg in dockerfile.global_args:
        for name, _ in arg.args:
            value = global_values.get(name, "")
            before[name] = BuildArgument(name, describe(arg.comments, name), value, arg.span)
    secrets: dict[str, MountedSecret] = {}
    agents: dict[str, MountedSecret] = {}
    for index in stages:
        values = stage_values.get(index, {})
        for command in dockerfile.stages[index].commands:
            if isinstance(command, ast.Arg):
                for name, default in command.args:
                    if default is None and name in before:
                        used.add(name)
                    else:
                        text = describe(command.comments, name)
                        value = values.get(name) or ""
                        own.setdefault(name, BuildArgument(name, text, value, command.span))
            elif isinstance(command, ast.Run):
                _mounts(command, secrets, agents)
    found.update((name, before[name]) for name in before if name in used)
    found.update((name, argument) for name, argument in own.items() if name not in found)
    start = dockerfile.stages[target].start
    return Outline(
        start.name,
        describe(start.comments, start.name),
        tuple(sorted(found.values(), key=_line)),
        tuple(sorted(secrets.values(), key=_line)),
        tuple(sorted(agents.values(), key=_line)),
    )


def describe(comments: Iterable[str], name: str) -> str:
    """The description in `# NAME the description`, from the comments above an instruction."""
    for comment in comments:
        if name and comment.startswith(f"{name} "):
            return comment[len(name) + 1 :]
    return ""


def _mounts(
    command: ast.Run, secrets: dict[str, MountedSecret], agents: dict[str, MountedSecret]
) -> None:
    for flag in command.flags:
        if flag.name != "mount" or flag.value is None:
            continue
        fields = dict(_field(text) for text in flag.value.split(","))
        required = fields.get("required", "false").lower() in {"true", "1", "t"}
        kind = fields.get("type", "bind")
        if kind == "secret":
            target = fields.get("target") or fields.get("dst") or fields.get("destination") or ""
            id = fields.get("id") or fields.get("source") or fields.get("src")
            id = id or target.rpartition("/")[2]
            secrets.setdefault(id, MountedSecret(id, required, command.span))
        elif kind == "ssh":
            id = fields.get("id") or "default"
            agents.setdefault(id, MountedSecret(id, required, command.span))


def _field(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    return key.strip().lower(), value if equals else "true"


def _line(item: BuildArgument | MountedSecret) -> int:
    return item.span.start
