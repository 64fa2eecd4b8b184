# SPDX-License-Identifier: Apache-2.0
"""Commands on containers, on a store of its own for each test, which must be clean in the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.testing.busybox import Lamina, make_image, using


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.tool("crun", "busybox"))


@pytest.fixture
def lamina(tmp_path: Path) -> Iterator[Lamina]:
    """The command line on a fresh store with the image `bb`; nothing may be left behind."""
    root = str(tmp_path / "store")
    make_image(root)
    with using(root) as command:
        yield command
