# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from lamina.builder.scratch import Scratch
from lamina.system.process import identify, this_process

if TYPE_CHECKING:
    from pathlib import Path


def test_nothing_is_made_until_a_path_is_asked_for(tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path / "build"))
    scratch.close()
    assert not (tmp_path / "build").exists()


def test_directory_is_private_and_removed_at_the_end(tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path / "build"))
    path = scratch.path("x")
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
    scratch.close()
    assert list((tmp_path / "build").iterdir()) == []


def test_directory_of_a_dead_process_is_swept_and_of_a_living_one_kept(tmp_path: Path) -> None:
    parent = tmp_path / "build"
    with subprocess.Popen(["sleep", "60"]) as process:
        alive = identify(process.pid)
        assert alive is not None
        (parent / f"{alive.pid}-{alive.start_ticks}" / "mounted").mkdir(parents=True)
        (parent / f"{alive.pid}-{alive.start_ticks + 1}" / "stale").mkdir(parents=True)
        (parent / "other").mkdir()
        Scratch(str(parent)).path("x")
        process.kill()
    me = this_process()
    assert sorted(path.name for path in parent.iterdir()) == sorted(
        [f"{alive.pid}-{alive.start_ticks}", "other", f"{me.pid}-{me.start_ticks}"]
    )


def test_files_that_are_in_a_dead_directory_are_not_deleted(tmp_path: Path) -> None:
    dead = tmp_path / "build" / "999999999-1"
    dead.mkdir(parents=True)
    (dead / "file").write_text("x")
    Scratch(str(tmp_path / "build")).path("x")
    assert (dead / "file").exists()
