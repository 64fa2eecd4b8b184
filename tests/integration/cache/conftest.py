# SPDX-License-Identifier: Apache-2.0
"""The project of `lamina.testing.project`, built once; each test gets it as it was after that."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.testing.command import Lamina
from lamina.testing.once import made_once
from lamina.testing.project import STEPS, Project, make_context
from lamina.testing.registry import registry

__all__ = ["registry"]


@pytest.fixture(scope="session")
def busybox_store(busybox_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one of all tests, with an image that differs from `busybox:latest`: `other:latest`."""

    def make(place: Path) -> None:
        subprocess.run(["cp", "-a", str(busybox_store), str(place / "store")], check=True)
        (place / "Dockerfile").write_text("FROM busybox\nRUN echo other > /other\n")
        Lamina(place / "store", place)("build", "-t", "other:latest", ".")

    return made_once(tmp_path_factory, "busybox-other", make) / "store"


@pytest.fixture(scope="session", params=["directory", "archive"])
def built_project(
    request: pytest.FixtureRequest, busybox_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """The project, built once from a directory or a piped archive, and put aside in `pristine`."""
    place = tmp_path_factory.mktemp("project")
    subprocess.run(["cp", "-a", str(busybox_store), str(place / "store")], check=True)
    make_context(place / "app")
    project = Project(place, piped=request.param == "archive")
    built = project.build()
    assert {event["cause"] for event in built.ran.values()} == {"new"}
    assert len(built.ran) == len(STEPS)
    (place / "pristine").mkdir()
    for name in ("store", "app"):
        (place / name).rename(place / "pristine" / name)
    yield project
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def project(built_project: Project) -> Iterator[Project]:
    """The project after its first build. It stays where it was built: builds of another place are
    compared more carefully.
    """
    place = built_project.place
    for name in ("store", "app"):
        shutil.rmtree(place / name, ignore_errors=True)
        subprocess.run(["cp", "-a", str(place / "pristine" / name), str(place)], check=True)
    fresh = Project(place, piped=built_project.piped)
    fresh.builds = 1
    yield fresh
    mounts = Path("/proc/self/mounts").read_text()
    assert str(place) not in mounts, "a mount was left behind"
    for path in place.iterdir():
        if path.name != "pristine":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def usual_umask() -> Iterator[None]:
    """The umask that most systems have."""
    before = os.umask(0o022)
    yield
    os.umask(before)
