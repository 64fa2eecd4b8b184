# SPDX-License-Identifier: Apache-2.0
"""The whole command as a user runs it, on a store of the test's own with a busybox base image."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.testing.command import Lamina


@pytest.fixture
def lamina(tmp_path: Path, busybox_store: Path) -> Iterator[Lamina]:
    """A command on a fresh store that holds `busybox:latest`."""
    root = tmp_path / "store"
    subprocess.run(["cp", "-a", str(busybox_store), str(root)], check=True)
    context = tmp_path / "work"
    context.mkdir()
    yield Lamina(root, context)
    mounts = Path("/proc/self/mounts").read_text()
    assert str(tmp_path) not in mounts, "a mount was left behind"
    shutil.rmtree(tmp_path, ignore_errors=True)
