# SPDX-License-Identifier: Apache-2.0
"""A store and results of builds in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamina.store import open_store
from lamina.testing.images import ResultMaker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lamina.store.ports import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(str(tmp_path / "store"))
    yield opened
    opened.close()


@pytest.fixture
def results(store: Store) -> ResultMaker:
    return ResultMaker(store)
