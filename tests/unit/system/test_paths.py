# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.errors import Kind, LaminaError
from lamina.system.paths import (
    failure,
    lookup_in_root,
    lstat_beneath,
    open_beneath,
    open_in_root,
    readlink_beneath,
    realpath_in_root,
    shown,
)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A root with links that try to leave it; `secret` lies beside it."""
    (tmp_path / "secret").write_text("outside")
    inside = tmp_path / "root"
    (inside / "usr/lib").mkdir(parents=True)
    (inside / "secret").write_text("inside")
    (inside / "usr/lib/file").write_text("x")
    for name, target in {
        "lib": "usr/lib",
        "up": "../../../secret",
        "absolute": "/secret",
        "loop": "loop",
        "dangling": "/nowhere/x",
        "magic": "/proc/self/root/secret",
        "usr/back": "../lib",
    }.items():
        (inside / name).symlink_to(target)
    fd = os.open(inside, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def read(fd: int) -> bytes:
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", [b"secret", b"/secret", b"../secret", b"up", b"absolute"])
def test_links_and_dots_stay_inside(root: int, path: bytes) -> None:
    assert read(open_in_root(root, path, os.O_RDONLY)) == b"inside"


def test_descriptor_is_closed_on_exec(root: int) -> None:
    fd = open_in_root(root, b"", os.O_PATH)
    assert not os.get_inheritable(fd)
    os.close(fd)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (b"missing", Kind.NOT_FOUND),
        (b"dangling", Kind.NOT_FOUND),
        (b"loop", Kind.INVALID),
        (b"secret/x", Kind.INVALID),
        (b"n" * 256, Kind.INVALID),
        (b"a\0b", Kind.SYSTEM),
    ],
)
def test_failures_have_a_kind_and_name_the_path(root: int, path: bytes, kind: Kind) -> None:
    with pytest.raises(LaminaError) as caught:
        open_in_root(root, path, os.O_RDONLY)
    assert caught.value.kind is kind
    assert shown(path) in caught.value.what


def test_no_symlinks_refuses_links_on_the_way(root: int) -> None:
    assert read(open_in_root(root, b"usr/lib/file", os.O_RDONLY, no_symlinks=True)) == b"x"
    with pytest.raises(LaminaError) as caught:
        open_in_root(root, b"lib/file", os.O_RDONLY, no_symlinks=True)
    assert caught.value.kind is Kind.INVALID


def test_files_can_be_made(root: int) -> None:
    fd = open_in_root(root, b"lib/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(fd)
    assert lstat_beneath(os.readlink(b"/proc/self/fd/%d" % root), b"usr/lib/new").st_size == 0


def test_lookup_follows_links_and_gives_none_for_nothing(root: int) -> None:
    found = lookup_in_root(root, b"lib/file")
    assert found is not None
    assert found.st_size == 1
    assert lookup_in_root(root, b"dangling") is None
    assert lookup_in_root(root, b"secret/x") is None
    with pytest.raises(LaminaError):
        lookup_in_root(root, b"loop")


@pytest.mark.parametrize(
    ("path", "real"),
    [
        (b"", b""),
        (b"/", b""),
        (b"../..", b""),
        (b"lib/file", b"usr/lib/file"),
        (b"usr/back/new/../x", b"usr/lib/x"),
        (b"up", b"secret"),
        (b"absolute", b"secret"),
        (b"dangling", b"nowhere/x"),
        (b"a/b/c", b"a/b/c"),
        (b"./lib/.//file", b"usr/lib/file"),
    ],
)
def test_realpath_says_where_a_path_leads(root: int, path: bytes, real: bytes) -> None:
    assert realpath_in_root(root, path) == real


@pytest.mark.parametrize("path", [b"loop", b"loop/x", b"secret/x"])
def test_realpath_refuses_loops_and_files_as_directories(root: int, path: bytes) -> None:
    with pytest.raises(LaminaError) as caught:
        realpath_in_root(root, path)
    assert caught.value.kind is Kind.INVALID


def test_paths_longer_than_one_system_call_are_reached(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    name = b"d" * 200
    fd = os.open(tmp_path, os.O_PATH)
    for _ in range(25):
        os.mkdir(name, dir_fd=fd)
        deeper = os.open(name, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.symlink("target", b"link", dir_fd=fd)
    os.close(os.open(b"file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
    os.close(fd)
    far = b"/".join([name] * 25)
    assert len(far) > 4096
    assert lstat_beneath(root, far + b"/file").st_size == 0
    assert readlink_beneath(root, far + b"/link") == b"target"
    os.close(open_beneath(root, far + b"/file", os.O_RDONLY))
    with pytest.raises(OSError, match="symbolic links"):
        open_beneath(root, far + b"/link", os.O_RDONLY)


def test_messages_escape_what_a_terminal_would_obey() -> None:
    assert shown(b"a\x1b[2Jb\n\xff") == r"'a\x1b[2Jb\n\xff'"


def test_full_disk_is_exhausted_with_a_hint() -> None:
    error = failure(OSError(errno.ENOSPC, "full"), "cannot write 'x'")
    assert error.kind is Kind.EXHAUSTED
    assert error.what == "cannot write 'x': No space left on device"
    assert error.hint
