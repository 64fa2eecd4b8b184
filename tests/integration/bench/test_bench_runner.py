# SPDX-License-Identifier: Apache-2.0
"""The benchmark's runner: what it counts, and a whole run at a tiny size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[3] / "bench"
# 0.2 s of CPU, and 30 MiB that are used
_BURN = "import time\nx = bytearray(30 << 20)\nwhile time.process_time() < 0.2: pass\n"


def run(argv: list[str], place: Path, status: int = 0) -> str:
    """Output of a script that runs in a process of its own: it adopts orphans."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(BENCH), *filter(None, sys.path)])}
    done = subprocess.run(
        argv, env=env, cwd=place, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def measured(words: str, place: Path) -> dict[str, float]:
    """What the runner says of `sh -c WORDS`, where $BURN is a script that burns CPU."""
    (place / "burn.py").write_text(_BURN)
    script = (
        "import json, os, pathlib, measure\n"
        f"runner = measure.Runner(pathlib.Path({str(place)!r}))\n"
        f"env = dict(os.environ, BURN='{sys.executable} -I -S {place}/burn.py')\n"
        f"print(json.dumps(runner.measure(['sh', '-c', {words!r}], env, memory=True)))\n"
        "runner.close()\n"
    )
    found: dict[str, float] = json.loads(run([sys.executable, "-c", script], place))
    return found


def test_children_and_orphans_count(tmp_path: Path) -> None:
    alone = measured("true", tmp_path)
    assert alone["cpu"] < 0.15
    assert alone["peak"] < 20, "the memory of the runner itself is not counted"
    child = measured("$BURN; $BURN", tmp_path)
    assert child["cpu"] >= 0.35
    assert child["peak"] >= 30
    orphan = measured("setsid sh -c '$BURN; $BURN' & exit 0", tmp_path)
    assert orphan["cpu"] >= 0.35
    assert orphan["peak"] >= 30


def test_memory_is_that_of_all_processes_at_one_time(tmp_path: Path) -> None:
    together = measured("$BURN & $BURN & wait", tmp_path)
    assert together["peak"] < 60
    assert together["tree"] >= 60


def test_a_failed_command_is_told_with_its_error(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, measure\n"
        f"runner = measure.Runner(pathlib.Path({str(tmp_path)!r}))\n"
        "for argv in (['sh', '-c', 'echo bad luck >&2; exit 3'], ['/nowhere']):\n"
        "    try:\n        runner.measure(argv, dict(os.environ))\n"
        "    except measure.BenchError as error:\n        print(error)\n"
        "runner.close()\n"
    )
    text = run([sys.executable, "-c", script], tmp_path)
    assert "bad luck" in text
    assert "/nowhere could not be started" in text


def test_unknown_rows_and_peers_are_refused(tmp_path: Path) -> None:
    for flag in ("--rows=nothing", "--peers=nobody"):
        run([sys.executable, str(BENCH / "run.py"), flag], tmp_path, status=2)


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.tool("runc")
@pytest.mark.tool("git")
def test_a_tiny_run_writes_figures_and_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- bench: begin -->\n<!-- bench: end -->\n")
    place = tmp_path / "place"
    place.mkdir()
    argv = [sys.executable, str(BENCH / "run.py"), "--runs=1", "--heavy-runs=1", "--scale=0.005"]
    argv += ["--rows=edited,zstd,run,context", "--peers=git", f"--place={place}"]
    argv += [f"--json={tmp_path / 'out.json'}", f"--write={page}"]
    run(argv, tmp_path)
    found: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    rows = found["rows"]
    assert {key: sorted(row["medians"]) for key, row in rows.items()} == {
        "edited": ["lamina"],
        "zstd": ["lamina"],
        "run": ["lamina", "lamina, runc"],
        "context": ["git", "lamina"],
    }
    for row in rows.values():
        assert row["failed"] == {}
        assert all(
            m["wall"] > 0 and m["cpu"] > 0 and m["tree"] > 5 for m in row["medians"].values()
        )
    assert rows["zstd"]["medians"]["lamina"]["size"] > 0.1
    assert [goal["peer"] for goal in rows["context"]["goals"]] == ["git"]
    assert "unchanged context" in page.read_text()
    assert list(place.iterdir()) == [], "a store was left behind"
    assert str(place) not in Path("/proc/self/mounts").read_text()
