# SPDX-License-Identifier: Apache-2.0
"""`--update-golden`: rewrite the expected files instead of comparing (read the diff after it)."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest


class Golden(Protocol):
    def __call__(self, path: Path, actual: str) -> None:
        """Fail unless `path` holds `actual`; with `--update-golden` write it there."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite golden files with what was produced"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    update = request.config.getoption("update_golden", default=False)

    def compare(path: Path, actual: str) -> None:
        if update:
            path.write_text(actual)
        assert path.exists(), f"{path} does not exist: run with --update-golden and read it"
        assert actual == path.read_text()

    return compare
