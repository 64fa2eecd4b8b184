# SPDX-License-Identifier: Apache-2.0
"""A root filesystem becomes the same layer whatever wrote the tar."""

from __future__ import annotations

import io
import random
import tarfile
import tempfile
from typing import TYPE_CHECKING

import pytest

from lamina.errors import Kind, LaminaError
from lamina.image.pack import sorted_tar_items
from lamina.image.times import format_time, parse_time
from lamina.layer.entry import EntryType
from lamina.layer.tarwrite import write_tar
from lamina.tasks import CancelToken

if TYPE_CHECKING:
    from collections.abc import Sequence

Member = tuple[str, bytes, str]  # name, tar type flag, content or link target

TREE: list[Member] = [
    ("./", tarfile.DIRTYPE, ""),
    ("./a/", tarfile.DIRTYPE, ""),
    ("./a/file", tarfile.REGTYPE, "content"),
    ("./z-link", tarfile.SYMTYPE, "a/file"),
    ("./b", tarfile.REGTYPE, ""),
    ("./long" + "x" * 150, tarfile.REGTYPE, "long"),
]


def tar_of(members: Sequence[Member], *, format: int = tarfile.PAX_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=format) as tar:
        for name, kind, text in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
            if kind == tarfile.REGTYPE:
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
            else:
                member.linkname = text
                tar.addfile(member)
    return target.getvalue()


def normalised(raw: bytes) -> bytes:
    target = io.BytesIO()
    with tempfile.TemporaryFile() as spool:
        write_tar(sorted_tar_items(io.BytesIO(raw), spool, cancel=CancelToken()), target.write)
    return target.getvalue()


def entries(raw: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        return {member.name: member for member in tar}


def test_order_dialect_and_dot_slash_do_not_count() -> None:
    expected = normalised(tar_of(TREE))
    shuffled = TREE[1:]
    random.Random(1).shuffle(shuffled)
    bare = [(name.removeprefix("./"), kind, text) for name, kind, text in shuffled]
    assert normalised(tar_of(bare, format=tarfile.GNU_FORMAT)) == expected
    assert list(entries(expected))[:3] == ["a", "a/file", "b"]


def test_the_last_member_of_a_path_counts() -> None:
    twice = [*TREE, ("a/file", tarfile.REGTYPE, "newer")]
    raw = normalised(tar_of(twice))
    assert b"newer" in raw
    assert b"content" not in raw


def test_a_hard_link_keeps_what_its_target_was() -> None:
    members: list[Member] = [
        ("m", tarfile.REGTYPE, "old"),
        ("a", tarfile.LNKTYPE, "m"),
        ("z", tarfile.LNKTYPE, "a"),
        ("m", tarfile.REGTYPE, "new"),
    ]
    raw = normalised(tar_of(members))
    found = entries(raw)
    assert (found["a"].type, found["a"].size) == (tarfile.REGTYPE, 3)
    assert (found["z"].type, found["z"].linkname) == (tarfile.LNKTYPE, "a")
    assert found["m"].type == tarfile.REGTYPE
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        assert (tar.extractfile("z") or io.BytesIO()).read() == b"old"
        assert (tar.extractfile("m") or io.BytesIO()).read() == b"new"


def test_a_sparse_file_is_expanded() -> None:
    import subprocess

    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/sparse", "wb") as file:
            file.seek(1 << 20)
            file.write(b"end")
        made = subprocess.run(
            ["tar", "-C", folder, "--sparse", "-cf", "-", "sparse"], capture_output=True, check=True
        )
    member = entries(normalised(made.stdout))["sparse"]
    assert member.size == (1 << 20) + 3


@pytest.mark.parametrize(
    "members",
    [
        [("etc/.wh.passwd", tarfile.REGTYPE, "")],
        [("a", tarfile.LNKTYPE, "missing")],
    ],
)
def test_what_is_no_root_filesystem_is_refused(members: list[Member]) -> None:
    with pytest.raises(LaminaError) as caught:
        normalised(tar_of(members))
    assert caught.value.kind is Kind.INVALID


def test_names_cannot_leave_the_root() -> None:
    found = entries(normalised(tar_of([("../../etc/passwd", tarfile.REGTYPE, "x")])))
    assert list(found) == ["etc/passwd"]


def test_devices_are_kept() -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        member = tarfile.TarInfo("null")
        member.type, member.devmajor, member.devminor = tarfile.CHRTYPE, 1, 3
        tar.addfile(member)
    with tempfile.TemporaryFile() as spool:
        ((entry, content),) = sorted_tar_items(
            io.BytesIO(target.getvalue()), spool, cancel=CancelToken()
        )
    assert (entry.type, entry.devmajor, entry.devminor) == (EntryType.CHAR, 1, 3)
    assert content is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (1_700_000_000.5, "2023-11-14T22:13:20.5Z"),
        (4_102_444_799, "2099-12-31T23:59:59Z"),
        (-1, "1969-12-31T23:59:59Z"),
    ],
)
def test_times_round_trip(seconds: float, text: str) -> None:
    assert format_time(seconds) == text
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2023-11-14T22:13:20.123456789Z", 1_700_000_000.123456789),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000.0),
        ("2023-11-14T20:13:20-02:00", 1_700_000_000.0),
        ("yesterday", None),
        ("2023-13-01T00:00:00Z", None),
        ("", None),
    ],
)
def test_times_of_other_tools_are_read(text: str, seconds: float | None) -> None:
    assert parse_time(text) == seconds
