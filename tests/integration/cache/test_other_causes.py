# SPDX-License-Identifier: Apache-2.0
"""Changes whose true cause is easy to miss: each reruns, is named, and gives a clean build's image."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lamina.testing.project import Project

pytestmark = [pytest.mark.root, pytest.mark.tool("crun")]


class Case(NamedTuple):
    """A Dockerfile after `FROM busybox`, a change, and what `why` has to say of its first step."""

    dockerfile: str
    change: Callable[[Project], object]
    cause: str
    subject: str
    old: str
    new: str
    flags: tuple[str, ...] = ()


def attribute(project: Project) -> None:
    os.setxattr(project.context / "src/a", "user.x", b"1")


def attribute_of_directory(project: Project) -> None:
    os.setxattr(project.context / "src/d", "user.x", b"1")


CASES = {
    "attribute": Case("COPY src /s", attribute, "file-attributes", "src/a", "", ""),
    "attribute of a directory": Case(
        "COPY src /s", attribute_of_directory, "file-attributes", "src/d", "-", ""
    ),
    "text of a heredoc": Case(
        "COPY <<EOF /f\none\nEOF",
        lambda p: p.edit("one", "two"),
        "file-content",
        "<<EOF",
        "2c8b08da5ce60398",
        "27dd8ed44a83ff94",
    ),
    "program in a heredoc": Case(
        "RUN <<EOF\n#!/bin/sh\ntrue\necho one > /f\nEOF",
        lambda p: p.edit("one", "two"),
        "instruction",
        "RUN <<EOF (#!/bin/sh...)",
        "echo one > /f",
        "echo two > /f",
    ),
    "mode of what is mounted": Case(
        "RUN --mount=type=bind,source=src,target=/m stat -c %a /m > /f",
        lambda p: (p.context / "src").chmod(0o700),
        "file-mode",
        "src",
        "0755",
        "0700",
    ),
    "ulimit": Case(
        "RUN ulimit -n > /f",
        lambda _: None,
        "setting",
        "--ulimit",
        "not set",
        '[["nofile", 512, 512]]',
        ("--ulimit", "nofile=512"),
    ),
}


@pytest.fixture
def place(tmp_path: Path, busybox_store: Path) -> Iterator[Path]:
    subprocess.run(["cp", "-a", str(busybox_store), str(tmp_path / "store")], check=True)
    (tmp_path / "app/src/d").mkdir(parents=True)
    (tmp_path / "app/src").chmod(0o755)
    (tmp_path / "app/src/a").write_text("a\n")
    yield tmp_path
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


@pytest.mark.parametrize("name", CASES)
def test_another_cause(name: str, place: Path, busybox_store: Path) -> None:
    case = CASES[name]
    project = Project(place, piped=False)
    project.dockerfile.write_text(f"FROM busybox\n{case.dockerfile}\n")
    project.build()
    case.change(project)
    built = project.build(*case.flags)
    (why,) = built.ran.values()
    assert (why["cause"], why["subject"]) == (case.cause, case.subject), why["text"]
    if case.old:
        assert why["old"] == case.old
    if case.new:
        assert why["new"] == case.new
    assert why["more"] == 0
    content = built.content()
    (place / "store").rename(place / "used")
    subprocess.run(["cp", "-a", str(busybox_store), str(place / "store")], check=True)
    assert content == project.build(*case.flags).content()
