# SPDX-License-Identifier: Apache-2.0
"""Programs that import lamina: a store of the test's own, which is the one they mean."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import lamina
from lamina.app import apistore
from lamina.testing.busybox import processes_of
from lamina.testing.waiting import wait_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.host_root("this process opens the store"))
            item.add_marker(pytest.mark.tool("crun", "busybox"))


@pytest.fixture
def root(tmp_path: Path, busybox_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store with `busybox`; in the end nothing runs and no container is left in it."""
    made = str(tmp_path / "store")
    subprocess.run(["cp", "-a", str(busybox_store), made], check=True)
    monkeypatch.setenv("LAMINA_ROOT", made)
    yield made
    for each in lamina.containers.list(all=True, root=made):
        each.remove(force=True)
    apistore.close_store(made)
    wait_until(lambda: processes_of(made) == [])
    assert os.listdir(f"{made}/containers") == []
