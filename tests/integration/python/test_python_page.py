# SPDX-License-Identifier: Apache-2.0
"""docs/python.md: every example on it runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs/python.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
TESTS = [text for text in EXAMPLES if text.startswith("# test_")]


@pytest.fixture
def place(root: str, tmp_path: Path) -> Path:
    """Where the page's programs run: what they take for granted is there."""
    hello = tmp_path / "examples/hello"
    hello.mkdir(parents=True)
    (hello / "Dockerfile").write_text('FROM busybox\nLABEL a=b\nCMD ["echo", "hello"]\n')
    return tmp_path


def run(place: Path, *words: str) -> str:
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "LAMINA_ROOT": f"{place}/store"}
    done = subprocess.run(
        [sys.executable, *words], cwd=place, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_programs_run_one_after_the_other(place: Path) -> None:
    code = "\n".join(text for text in EXAMPLES if text not in TESTS)
    assert code.count("lamina.containers.run") == 10
    (place / "program.py").write_text(code)
    said = run(place, "program.py")
    assert "<Image " in said
    assert "b'line 3\\n'" in said


def test_tests_pass(place: Path) -> None:
    run(place, "-c", "import lamina; lamina.build('examples/hello', tags=['hello'])")
    [text] = TESTS
    (place / "test_service.py").write_text(text)
    words = ("-m", "pytest", "-q", "-p", "lamina.testing.plugin", "test_service.py")
    assert "2 passed" in run(place, *words)
