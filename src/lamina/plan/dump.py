# SPDX-License-Identifier: Apache-2.0
"""A plan as text for people and golden files: one block a vertex, edges by number."""

from __future__ import annotations

from lamina.errors import never
from lamina.plan.ops import (
    CopyAction,
    Exec,
    FileOp,
    GitSource,
    HttpSource,
    ImageSource,
    InlineSource,
    LocalSource,
    Merge,
    MkdirAction,
)
from lamina.redaction import redacted
from lamina.start.record import defaults, fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.plan.graph import Edge, Plan, Vertex
    from lamina.plan.mounts import RunMount
    from lamina.plan.ops import FileAction
    from lamina.spec.digest import Digest


def dump_plan(plan: Plan) -> str:
    """The plan in lines, vertices in order and numbered from 1; ends with the outputs.

    The same plan gives the same text. `*` marks a vertex whose layer is exported.
    """
    numbers = {vertex.digest: index for index, vertex in enumerate(plan.vertices, start=1)}
    lines: list[str] = []
    for vertex in plan.vertices:
        mark = "*" if vertex.meta.exported else ""
        lines.append(f"#{numbers[vertex.digest]}{mark} {vertex.meta.name}")
        lines += [f"    {line}" for line in _vertex(vertex, numbers)]
    outputs = " ".join(_edge(edge, numbers) for edge in plan.outputs)
    return "\n".join([*lines, f"=> {outputs}"]) + "\n"


def _edge(edge: Edge | None, numbers: dict[Digest, int]) -> str:
    return "empty" if edge is None else f"#{numbers[edge.vertex]}"


def _vertex(vertex: Vertex, numbers: dict[Digest, int]) -> Iterator[str]:
    inputs = [_edge(edge, numbers) for edge in vertex.inputs]
    op = vertex.op
    match op:
        case ImageSource():
            yield f"image {op.reference} {op.platform}"
            yield f"manifest {op.manifest.short()} layers {len(op.diff_ids)}"
        case LocalSource():
            yield f"local {op.name}"
            for pattern in op.ignore:
                yield f"ignore {pattern}"
        case InlineSource():
            yield "inline"
            for name, text in op.files:
                yield f"file {name!r} {text!r}"
        case HttpSource():
            yield f"http {redacted(op.url)} as {op.name!r}"
            yield f"content {op.digest}"
        case GitSource():
            yield f"git {redacted(op.remote)} at {op.commit}"
            yield from _git(op)
        case Merge():
            yield f"merge {' '.join(inputs)}"
        case Exec():
            yield f"exec on {inputs[0]}"
            yield from _exec(op, inputs)
        case FileOp():
            owners = f" owners of {inputs[op.owners]}" if op.owners is not None else ""
            yield f"file on {inputs[0]}{owners}"
            for action in op.actions:
                yield _action(action, inputs)
        case _:
            never(op)


def _git(op: GitSource) -> Iterator[str]:
    if op.ref:
        yield f"ref {op.ref}"
    if op.subdir:
        yield f"subdir {op.subdir}"
    if op.keep_git_dir:
        yield "keep .git"
    if not op.submodules:
        yield "no submodules"


def _exec(op: Exec, inputs: list[str]) -> Iterator[str]:
    yield f"argv {list(op.argv)!r}"
    for name, value in op.env:
        yield f"env {name}={value!r}"
    yield f"cwd {op.cwd}"
    if op.user:
        yield f"user {op.user}"
    if op.network != "default":
        yield f"network {op.network}"
    if op.security != "sandbox":
        yield f"security {op.security}"
    if op.hostname:
        yield f"hostname {op.hostname}"
    for host, address in op.extra_hosts:
        yield f"host {host}={address}"
    if op.shm_size:
        yield f"shm {op.shm_size}"
    for name, soft, hard in op.ulimits:
        yield f"ulimit {name}={soft}:{hard}"
    for mount in op.mounts:
        yield _mount(mount, inputs)
    for name, _ in op.proxy_args:
        yield f"proxy {name}"  # its value may hold a password


def _mount(mount: RunMount, inputs: list[str]) -> str:
    """`mount bind from #2 path='src' target=/src`; what has its default value is left out."""
    cls = type(mount)
    words = [f"mount {cls.__name__.removesuffix('Mount').lower()}"]
    for name in fields(cls):
        value = getattr(mount, name)
        if name == "source":
            words.append(f"from {inputs[value]}" if value is not None else "from empty")
        elif name in {"uid", "gid"}:
            words += [f"{name}={value}"] if value else []
        elif name == "mode":
            words += [f"mode={value:04o}"] if value is not None else []
        elif value not in {"", 0}:
            words.append(f"{name}={value!r}" if isinstance(value, str) else f"{name}={value}")
    return " ".join(words)


def _action(action: FileAction, inputs: list[str]) -> str:
    match action:
        case MkdirAction():
            return f"mkdir {action.path}" + (f" owner={action.owner}" if action.owner else "")
        case CopyAction():
            return _copy(action, inputs[action.source])
        case _:
            return never(action)


def _copy(action: CopyAction, source: str) -> str:
    """What is not told by its place has its name; what has its default value is left out."""
    words = ["unpack" if action.unpack else "copy", f"from {source}", repr(list(action.patterns))]
    words.append(f"to {action.dest}")
    for name, default in defaults(CopyAction).items():
        value = getattr(action, name)
        if value == default or name == "unpack":
            continue
        if value is True:
            words.append(name)
        else:
            words.append(
                f"{name}={list(value)!r}" if isinstance(value, tuple) else f"{name}={value}"
            )
    return " ".join(words)
