# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.container.stubs import MountStubs


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    top = tmp_path / "root"
    top.mkdir()
    fd = os.open(top, os.O_PATH | os.O_DIRECTORY)
    yield top, fd
    os.close(fd)


def test_missing_file_and_its_directories_come_and_go(root: tuple[Path, int]) -> None:
    top, fd = root
    os.utime(top, (5, 5))
    stubs = MountStubs()
    stubs.make(fd, [("/etc/deep/file", False), ("/proc", True)])
    assert (top / "etc/deep/file").is_file()
    assert (top / "proc").is_dir()
    stubs.remove()
    assert list(top.iterdir()) == []
    assert top.stat().st_mtime == 5


def test_what_exists_is_not_touched(root: tuple[Path, int]) -> None:
    top, fd = root
    (top / "etc").mkdir()
    (top / "etc/hosts").touch()
    stubs = MountStubs()
    stubs.make(fd, [("/etc/hosts", False), ("/etc", True)])
    stubs.remove()
    assert (top / "etc/hosts").exists()


def test_stub_that_was_written_to_stays(root: tuple[Path, int]) -> None:
    top, fd = root
    stubs = MountStubs()
    stubs.make(fd, [("/file", False), ("/dir", True)])
    (top / "file").write_text("x")
    (top / "dir/inside").touch()
    stubs.remove()
    assert (top / "file").read_text() == "x"
    assert (top / "dir/inside").exists()


def test_stub_that_was_replaced_stays(root: tuple[Path, int], tmp_path: Path) -> None:
    top, fd = root
    (tmp_path / "empty").touch()
    stubs = MountStubs()
    stubs.make(fd, [("/file", False)])
    (top / "other").touch()
    (top / "other").rename(top / "file")
    stubs.remove()
    assert (top / "file").exists()


def test_directory_swapped_for_a_link_to_outside_is_not_followed(
    root: tuple[Path, int], tmp_path: Path
) -> None:
    top, fd = root
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    stubs = MountStubs()
    stubs.make(fd, [("/a/file", False)])
    (top / "a").rename(top / "b")
    (top / "a").symlink_to(outside)
    stubs.remove()
    assert (outside / "file").exists()
    assert not (top / "b/file").exists()


@pytest.mark.parametrize("target", ["/../../../outside/made", "../../../outside/made"])
def test_link_cannot_make_anything_outside(
    root: tuple[Path, int], tmp_path: Path, target: str
) -> None:
    top, fd = root
    (tmp_path / "outside").mkdir()
    (top / "link").symlink_to(target)
    stubs = MountStubs()
    stubs.make(fd, [("/link", False)])
    assert list((tmp_path / "outside").iterdir()) == []
    assert (top / "outside/made").is_file()
    stubs.remove()
    assert not (top / "outside").exists()


def test_loop_of_links_and_file_in_the_way_are_left_alone(root: tuple[Path, int]) -> None:
    top, fd = root
    (top / "loop").symlink_to("loop")
    (top / "plain").touch()
    stubs = MountStubs()
    stubs.make(fd, [("/loop/x", True), ("/plain/x", True)])
    stubs.remove()
    assert sorted(path.name for path in top.iterdir()) == ["loop", "plain"]


def test_descriptors_are_closed(root: tuple[Path, int]) -> None:
    _, fd = root
    before = len(os.listdir("/proc/self/fd"))
    stubs = MountStubs()
    stubs.make(fd, [("/a/b/c", False), ("/a/x", True)])
    stubs.remove()
    assert len(os.listdir("/proc/self/fd")) == before


def test_directory_for_a_tmpfs_gets_its_mode_and_is_removed(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    stubs = MountStubs()
    stubs.make(fd, [("/a/t", True), ("/b", True)], modes={"/a/t": 0o1777})
    try:
        modes = [(tmp_path / name).stat().st_mode & 0o7777 for name in ("a", "a/t", "b")]
    finally:
        stubs.remove()
        os.close(fd)
    assert modes == [0o755, 0o1777, 0o755]
    assert os.listdir(tmp_path) == []
