# SPDX-License-Identifier: Apache-2.0
"""Every test here runs containers, on a store of its own that must be clean in the end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.testing.busybox import Lamina, make_image, using
from lamina.testing.once import made_once


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.tool("crun", "busybox"))


@pytest.fixture(scope="session")
def bb_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds the image `bb`, unpacked, and knows its runtime."""

    def make(place: Path) -> None:
        make_image(str(place / "store"))
        Lamina(str(place / "store"))("run", "--rm", "--network=none", "bb", "true")

    return made_once(tmp_path_factory, "bb", make) / "store"


@pytest.fixture
def lamina(tmp_path: Path, bb_store: Path) -> Iterator[Lamina]:
    """The command line on a fresh store with the image `bb`; nothing may be left behind."""
    root = str(tmp_path / "store")
    subprocess.run(["cp", "-a", str(bb_store), root], check=True)
    with using(root) as command:
        yield command
