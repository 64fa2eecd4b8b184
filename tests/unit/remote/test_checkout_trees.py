# SPDX-License-Identifier: Apache-2.0
"""A checkout may be as deep as paths can be long."""

from __future__ import annotations

import os
from pathlib import Path

from lamina.remote.git import _remove_git_dirs, _set_times
from lamina.system.removal import remove_tree


def test_deep_checkout_is_tidied_and_dated(tmp_path: Path) -> None:
    inner = tmp_path / "module" / ".git"
    inner.mkdir(parents=True)
    (tmp_path / ".git" / "objects").mkdir(parents=True)
    (tmp_path / "link").symlink_to("/nowhere")
    place = str(tmp_path / "deep")
    os.mkdir(place)
    for _ in range(1200):
        place += "/d"
        os.mkdir(place)
    Path(place, ".git").write_text("gitdir: ../elsewhere\n")
    Path(place, "file").touch()
    _remove_git_dirs(str(tmp_path))
    _set_times(str(tmp_path), 1_600_000_000)
    assert os.listdir(place) == ["file"]
    assert not list(tmp_path.glob("*/.git"))
    for path in (
        tmp_path,
        tmp_path / "link",
        tmp_path / "module",
        Path(place),
        Path(place, "file"),
    ):
        assert path.lstat().st_mtime == 1_600_000_000
    remove_tree(str(tmp_path / "deep"))  # pytest's own way of removing calls itself
