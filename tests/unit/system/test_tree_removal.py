# SPDX-License-Identifier: Apache-2.0
"""Removing directory trees."""

from __future__ import annotations

import os
from pathlib import Path

from lamina.system.removal import remove_tree
from lamina.system.temporary import make_temporary


def test_tree_is_removed_and_its_size_told(tmp_path: Path) -> None:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "file").write_bytes(b"x" * 100_000)
    assert remove_tree(str(tmp_path / "tree")) >= 100_000
    assert os.listdir(tmp_path) == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("kept")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "outside")
    remove_tree(str(tmp_path / "tree"))
    assert (tmp_path / "outside" / "file").read_text() == "kept"


def test_missing_tree_is_no_error(tmp_path: Path) -> None:
    assert remove_tree(str(tmp_path / "none")) == 0


def test_tree_deeper_than_the_descriptor_limit_is_removed(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    remove_tree(str(tmp_path / "d"))
    assert os.listdir(tmp_path) == []


def test_what_a_killed_removal_moved_aside_is_in_nobodys_way(tmp_path: Path) -> None:
    """Or what another process, which removes the same tree, moves at this moment."""
    (tmp_path / "d.deep.1" / "below").mkdir(parents=True)
    os.makedirs(tmp_path / "/".join(["d"] * 300))
    remove_tree(str(tmp_path / "d"))
    assert os.listdir(tmp_path) == ["d.deep.1"]


def test_names_that_are_not_utf8_are_removed(tmp_path: Path) -> None:
    os.makedirs(os.fsencode(tmp_path) + b"/tree/\xff\xfe")
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == []


def test_directories_without_permissions_are_removed(tmp_path: Path) -> None:
    (tmp_path / "tree" / "closed" / "below").mkdir(parents=True)
    os.chmod(tmp_path / "tree" / "closed", 0)
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == []


def test_temporary_directory_may_hold_a_very_deep_tree(tmp_path: Path) -> None:
    made = make_temporary(str(tmp_path), "x-")
    here = os.open(made.path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    made.remove()
    assert os.listdir(tmp_path) == []
