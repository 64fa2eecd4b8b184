# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.builder.listing import listing
from lamina.builder.selection import select
from lamina.builder.tree import Tree


def listed(root: Path) -> dict[str, str]:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    tree = Tree(fd, what="the build context", ignore=None, keeps_owner=False)
    try:
        return listing(select(tree, (".",), cache=None), tree)
    finally:
        tree.close()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    for name in ("a/x/1", "a/y/2", "b/3", "4"):
        path = tmp_path / "context" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        path.chmod(0o644)
    return tmp_path / "context"


def test_few_files_are_listed_one_by_one(context: Path) -> None:
    rows = listed(context)
    assert list(rows) == ["4", "a", "a/x", "a/x/1", "a/y", "a/y/2", "b", "b/3"]
    assert rows["4"].startswith("file 0644 - ")


def test_many_files_are_listed_by_directory(context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamina.builder.listing.MAX_LISTING", 6)
    before = listed(context)
    assert list(before) == ["/", "a/", "a/x/", "a/y/", "b/"]
    (context / "a" / "y" / "2").write_text("two")
    after = listed(context)
    assert [path for path in after if after[path] != before[path]] == ["a/y/"]


def test_many_directories_are_summed_up_again(
    context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lamina.builder.listing.MAX_LISTING", 3)
    before = listed(context)
    assert list(before) == ["/", "a/", "b/"]
    (context / "a" / "y" / "2").write_text("two")
    after = listed(context)
    assert [path for path in after if after[path] != before[path]] == ["a/"]
