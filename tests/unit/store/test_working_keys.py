# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
from pathlib import Path

from lamina.store import open_store
from lamina.store.working import sweep_working, working_key
from lamina.system.process import identify, unique_name


def test_names_are_unique() -> None:
    assert len({unique_name() for _ in range(1000)}) == 1000


def test_only_what_dead_processes_left_is_swept(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        dead = identify(process.pid)
        assert dead is not None
        process.kill()
    store = open_store(str(tmp_path / "store"))
    kept = [working_key("build:abc"), "0123abc", "odd@name"]
    for key in [*kept, f"unpack:sha256:x@{dead.pid}-{dead.start_ticks}-7"]:
        store.snapshots.prepare(key, None)
    sweep_working(store)
    assert sorted(found.name for found in store.snapshots.walk()) == sorted(kept)
    store.close()
