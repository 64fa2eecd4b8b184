# SPDX-License-Identifier: Apache-2.0
"""The whole command as a user runs it, on a store of the test's own with a busybox base image."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


class Lamina:
    """Runs `lamina` in a process of its own on the store at `root`."""

    def __init__(self, root: Path, cwd: Path) -> None:
        self.root = root
        self.cwd = cwd
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("LAMINA_")}
        self.env |= {"LAMINA_ROOT": str(root)}
        self.env.pop("SOURCE_DATE_EPOCH", None)

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "lamina.cli.main", *words]

    def __call__(
        self, *words: str, check: bool = True, stdin: bytes = b"", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.argv(*words),
            env=self.env | (env or {}),
            cwd=self.cwd,
            input=stdin,
            capture_output=True,
            timeout=250,
            check=False,
        )
        result = subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )
        assert "Traceback" not in result.stderr, result.stderr
        if check:
            assert result.returncode == 0, f"{words}: {result.returncode}\n{result.stderr}"
        return result

    def id_of(self, name: str) -> str:
        return self("inspect", "--format", "{{.Id}}", name).stdout.strip()


@pytest.fixture(scope="session")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store that holds `busybox:latest`; tests copy it."""
    place = tmp_path_factory.mktemp("busybox")
    lamina = Lamina(place / "store", place)
    lamina("bootstrap", "busybox", "-t", "busybox:latest", env={"SOURCE_DATE_EPOCH": "1700000000"})
    yield place / "store"
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def lamina(tmp_path: Path, busybox_root: Path) -> Iterator[Lamina]:
    """A command on a fresh store that holds `busybox:latest`."""
    root = tmp_path / "store"
    subprocess.run(["cp", "-a", str(busybox_root), str(root)], check=True)
    context = tmp_path / "work"
    context.mkdir()
    yield Lamina(root, context)
    mounts = Path("/proc/self/mounts").read_text()
    assert str(tmp_path) not in mounts, "a mount was left behind"
    shutil.rmtree(tmp_path, ignore_errors=True)
