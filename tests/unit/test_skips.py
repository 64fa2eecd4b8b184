# SPDX-License-Identifier: Apache-2.0
"""With LAMINA_NO_SKIPS a run fails by each skipped test but those that this host cannot run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PLACES = {
    "body": "def test_it():\n    pytest.skip('for another Python')\n",
    "mark": "@pytest.mark.skipif(True, reason='for another Python')\ndef test_it():\n    pass\n",
    "fixture": (
        "@pytest.fixture\ndef thing():\n    pytest.skip('for another Python')\n\n"
        "def test_it(thing):\n    pass\n"
    ),
    "module": "pytest.importorskip('no_such_module')\n\ndef test_it():\n    pass\n",
    "host": (
        "from lamina.testing.skips import host_lacks\n\n"
        "def test_it():\n    host_lacks('a tape drive')\n"
    ),
    "expected": "@pytest.mark.xfail(reason='known')\ndef test_it():\n    raise AssertionError\n",
}
PLUGIN = ("-p", "lamina.testing.skips", "-p", "no:cacheprovider", "-p", "no:randomly")


def run(tmp_path: Path, place: str, **env: str) -> tuple[int, str]:
    (tmp_path / "test_it.py").write_text(f"import pytest\n\n{PLACES[place]}")
    kept = {key: value for key, value in os.environ.items() if key != "LAMINA_NO_SKIPS"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), *PLUGIN, "test_it.py"],
        cwd=tmp_path, env=kept | env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.parametrize("place", ["body", "mark", "fixture", "module"])
def test_a_skip_is_a_failure_wherever_it_is_written(tmp_path: Path, place: str) -> None:
    status, _ = run(tmp_path, place)
    assert status in {0, 5}  # a module of which nothing is left: no tests
    status, out = run(tmp_path, place, LAMINA_NO_SKIPS="1")
    assert status not in {0, 5}
    assert "this run must not skip" in out


@pytest.mark.parametrize("place", ["host", "expected"])
def test_what_this_host_cannot_do_is_listed(tmp_path: Path, place: str) -> None:
    status, out = run(tmp_path, place, LAMINA_NO_SKIPS="1")
    assert status == 0
    assert ("this host lacks a tape drive" in out) == (place == "host")
