# SPDX-License-Identifier: Apache-2.0
"""What a field of an op must be told to: dumps, explanations, and cache keys, which it must not change."""

from __future__ import annotations

from typing import TypeVar, get_args

import pytest

from lamina.plan import mounts, ops
from lamina.plan.dump import dump_plan
from lamina.plan.graph import Edge, Plan, VertexMeta, vertex
from lamina.plan.mounts import (
    BindMount,
    CacheMount,
    ScriptMount,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from lamina.plan.ops import (
    CopyAction,
    Exec,
    FileOp,
    GitSource,
    HttpSource,
    ImageSource,
    InlineSource,
    LocalSource,
    MkdirAction,
)
from lamina.solver import explain
from lamina.solver.keys import _FIRST_FIELDS, by_chain, by_content, given_content, op_key
from lamina.spec.digest import DiffID, Digest
from lamina.start.record import Record, defaults, fields, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lamina.plan.mounts import RunMount
    from lamina.plan.ops import FileAction, Op

R = TypeVar("R", bound=Record)
D = Digest.of(b"d")
BASE = by_chain((DiffID(Digest.of(b"a")),))
SOURCE = by_content(D)

# each with a value other than the default in every field
MOUNTS: list[RunMount] = [
    BindMount("/b", 1, "x", read_only=False),
    CacheMount("/c", "id", 1, "x", read_only=True, sharing="locked", uid=1, gid=2, mode=0o700),
    TmpfsMount("/t", 1, read_only=True),
    SecretMount("s", "/s", "S", required=True, uid=1, gid=2, mode=0o440),
    SshMount("s", "/h", required=True, uid=1, gid=2, mode=0o660),
    ScriptMount("/r", "f", "#!x"),
]
ACTIONS: list[FileAction] = [
    CopyAction(1, ("x",), "/x", "1:1", "0755", unpack=True, exclude=("y",), parents=True),
    MkdirAction("/w", "app"),
]
OPS: list[Op] = [
    ImageSource("docker.io/library/a:1", D, (DiffID(D),), "linux/amd64"),
    LocalSource("context", ("*.o",)),
    InlineSource((("f", "text"),)),
    HttpSource("http://a/b", D, "b", 7),
    GitSource("http://a/b.git", "c0", "main", "sub", keep_git_dir=True, submodules=False),
    Exec(
        ("true",),
        (("A", "1"),),
        "/",
        "app",
        "none",
        "insecure",
        (("h", "1.2.3.4"),),
        1,
        "linux/arm64",
        (("http_proxy", "p"),),
        (BindMount("/b", 1),),
        "host",
        (("nofile", 1, 2),),
    ),
    FileOp((MkdirAction("/w"),), 2),
]
# what golden files need not show
NOT_DUMPED = {("Exec", "platform"), ("HttpSource", "mtime")}

RUN = Exec(("true",), (), "/")


def name(value: Record) -> str:
    return type(value).__name__


def changed(value: R, changes: dict[str, Any]) -> R:
    """As `replace`, with fields that only a run knows."""
    return type(value)(**{field: getattr(value, field) for field in fields(type(value))} | changes)


def optional(value: Record) -> list[tuple[str, object]]:
    return list(defaults(type(value)).items())


def dump(op: Op) -> str:
    images = [
        vertex(ImageSource(f"i{n}", D, (), "linux/amd64"), meta=VertexMeta(f"i{n}"))
        for n in range(3)
    ]
    edges = [Edge(each.digest) for each in images]
    made = vertex(op, edges, meta=VertexMeta("op"))
    return dump_plan(Plan((*images, made), (Edge(made.digest),)))


def test_there_is_an_example_of_every_member() -> None:
    members = {*get_args(ops.Op), *get_args(ops.FileAction), *get_args(mounts.RunMount)}
    assert {type(each) for each in (*OPS, *ACTIONS, *MOUNTS)} == members - {ops.Merge}


@pytest.mark.parametrize("value", [*MOUNTS, *ACTIONS, *OPS], ids=name)
def test_examples_have_a_value_of_their_own_in_every_field(value: Record) -> None:
    assert [field for field, default in optional(value) if getattr(value, field) == default] == []


@pytest.mark.parametrize("op", OPS, ids=name)
def test_dump_shows_every_field_of_an_op(op: Op) -> None:
    for field, default in optional(op):
        if (name(op), field) not in NOT_DUMPED:
            assert dump(op) != dump(changed(op, {field: default})), field


@pytest.mark.parametrize("action", ACTIONS, ids=name)
def test_dump_shows_every_field_of_an_action(action: FileAction) -> None:
    for field, default in optional(action):
        other = changed(action, {field: default})
        assert dump(FileOp((action,))) != dump(FileOp((other,))), field


@pytest.mark.parametrize("mount", MOUNTS, ids=name)
def test_dump_shows_every_field_of_a_mount(mount: RunMount) -> None:
    for field, default in optional(mount):
        other = changed(mount, {field: default})
        ops = [replace(RUN, mounts=(each,)) for each in (mount, other)]
        assert dump(ops[0]) != dump(ops[1]), field


def test_explanations_have_a_word_for_every_field() -> None:
    told_apart = {"argv", "env", "mounts", "proxy_args"}
    assert set(fields(Exec)) - told_apart == explain._SETTINGS.keys()
    assert set(fields(CopyAction)) - {"source", "patterns", "dest"} <= explain._COPY_FLAGS.keys()


# (key of the example, key of one with nothing but what it must have); what they digest to for all time:
# if one differs, whatever anybody has built runs again (see KEY_VERSION in solver/keys.py)
KEYS = {
    "BindMount": ("28257676ae2c52b0ebcb16be", "29d95412e11a1800704db526"),
    "CacheMount": ("b76566d1830d022cec9587e0", "4f25be6750b0a327bdcbde58"),
    "TmpfsMount": ("e631adcc6c9b68013945d3bf", "ba23ddf7d5475168050629ef"),
    "SecretMount": ("97e1339a9b5340197810a4f4", "2133c6c4ca03041eb2061533"),
    "SshMount": ("ec2f87756c3ebd8988d1cb4a", "f86a74baf7f75cdbe05a92f1"),
    "ScriptMount": ("61fae96210c167f1ad125750", "61fae96210c167f1ad125750"),
    "CopyAction": ("b93518d46a95deca41787e69", "c2734d1849e0b6bc4c636ff6"),
    "MkdirAction": ("059be3d5487f9dac3050f87a", "a2c40314c0baa7344334c6f7"),
    "InlineSource": ("bb6d032132f1f8a70156347a", "bb6d032132f1f8a70156347a"),
    "HttpSource": ("a551e02f34e76feb67b10d1b", "a551e02f34e76feb67b10d1b"),
    "GitSource": ("b96adaf0eb9f90f61c8dcc9c", "4e75fcad280942e2d883ed8f"),
    "Exec": ("857aca87f6f9b34dc61ed78e", "23acb7141d4d75fcaa8c3e65"),
    "FileOp": ("a230d57c181cb8baf726d631", "a2c40314c0baa7344334c6f7"),
}
KEYED = [
    each for each in (*MOUNTS, *ACTIONS, *OPS) if not isinstance(each, ImageSource | LocalSource)
]


def key_of(value: Record) -> str:
    """The digits of the key that the op makes, of an op with that action or mount, or the content."""
    if isinstance(value, InlineSource | HttpSource | GitSource):
        return given_content(value).hex[:24]
    op = value
    if isinstance(value, CopyAction | MkdirAction):
        op = FileOp((value,))
    elif not isinstance(value, Exec | FileOp):
        op = replace(RUN, mounts=(value,))  # type: ignore[arg-type]  # the rest are mounts
    assert isinstance(op, Exec | FileOp)
    return op_key(op, BASE, [SOURCE]).digest.hex[:24]


def smallest(value: Record) -> Record:
    """The example with the defaults of every field that has one."""
    return changed(value, defaults(type(value)))


def of_version_1(value: Record) -> Record:
    """The example without fields that came later."""
    later = defaults(type(value)).items()
    first = _FIRST_FIELDS[name(value)].split()
    return changed(value, {field: default for field, default in later if field not in first})


@pytest.mark.parametrize("value", KEYED, ids=name)
def test_keys_are_what_they_always_were(value: Record) -> None:
    assert (key_of(of_version_1(value)), key_of(smallest(value))) == KEYS[name(value)]


@pytest.mark.parametrize("value", KEYED, ids=name)
def test_field_added_later_changes_a_key_only_if_it_is_used(value: Record) -> None:
    before = type(value)

    class Later(before):  # type: ignore[valid-type, misc]  # a class that is known when it runs
        later: str = ""

    Later.__name__ = before.__name__
    values = {field: getattr(value, field) for field in fields(before)}
    assert key_of(Later(**values)) == key_of(value)
    assert key_of(Later(**values, later="x")) != key_of(value)
