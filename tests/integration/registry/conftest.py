# SPDX-License-Identifier: Apache-2.0
"""Debian's docker-registry and registries that misbehave, and small images to move."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.app.registries import connect
from lamina.app.settings import Settings
from lamina.registry.client import Registries
from lamina.tasks import CancelToken
from lamina.testing.command import Lamina
from lamina.testing.fakeregistry import FakeRegistry
from lamina.testing.registries import Distribution, distribution


@pytest.fixture
def docker_registry(tmp_path: Path) -> Iterator[Distribution]:
    with distribution(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment with a home of its own and no proxies."""
    (tmp_path / "home").mkdir()
    return {
        "HOME": str(tmp_path / "home"),
        "PATH": os.environ["PATH"],
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
    }


@pytest.fixture
def registries(home: dict[str, str]) -> Iterator[Registries]:
    found = connect(home, uid=1000, settings=Settings(), clock=time.time, cancel=CancelToken())
    yield found
    found.close()


@pytest.fixture
def command(tmp_path: Path, home: dict[str, str]) -> Lamina:
    """The whole command with that home, on the store at `tmp_path / "store"`."""
    lamina = Lamina(tmp_path / "store", tmp_path)
    lamina.env |= home
    return lamina
