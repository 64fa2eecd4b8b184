# SPDX-License-Identifier: Apache-2.0
"""What docs/caching.md tells people to type works, and says what the page says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from lamina.testing.command import Lamina

pytestmark = [pytest.mark.root, pytest.mark.tool("crun")]

PAGE = Path(__file__).parents[3] / "docs" / "caching.md"


def test_the_commands_of_the_page(tmp_path: Path, busybox_store: Path) -> None:
    text = PAGE.read_text()
    (dockerfile,) = re.findall(r"```dockerfile\n(.*?)```", text, re.DOTALL)
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 5
    subprocess.run(["cp", "-a", str(busybox_store), str(tmp_path / "store")], check=True)
    app = tmp_path / "app"
    app.mkdir()
    (app / "Dockerfile").write_text(dockerfile)
    (app / ".dockerignore").write_text("Dockerfile\n.dockerignore\ncaches\n")
    (app / "requirements.txt").write_text("x\n")
    (app / "main.py").write_text("print(1)\n")
    lamina = Lamina(tmp_path / "store", app)
    command = f'lamina() {{ {shlex.join(lamina.argv())} "$@"; }}\n'
    said = []
    for block in blocks:
        done = subprocess.run(
            ["bash", "-ec", command + block], env=lamina.env, cwd=app, capture_output=True,
            text=True, check=False, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, block + done.stdout + done.stderr
        said.append(done.stderr + done.stdout)
    assert "main.py" in said[0]
    assert "2 ran" in said[0]  # the steps from the edited file on
    assert "/root/.cache/pip" in said[1]
    assert "exporting cache to" in said[2]
    assert (tmp_path / "steps" / "index.json").exists()
    assert said[3].rstrip().splitlines()[-1].split()[1] == "/root/.cache/pip"
    assert os.listdir(app / "caches" / "blobs") == ["sha256"]
    assert lamina("cache", "ls", "-q").stdout == ""
