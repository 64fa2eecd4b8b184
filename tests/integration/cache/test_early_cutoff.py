# SPDX-License-Identifier: Apache-2.0
"""A RUN that ran again and made the same files leaves what follows cached; nothing else does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lamina.testing.project import Project

pytestmark = [pytest.mark.root, pytest.mark.tool("crun")]

MAKES = "mkdir -p /d/e && echo same > /d/e/f && ln /d/e/f /d/g && ln -s f /d/e/h && rm /bin/vi"


@pytest.fixture
def project(tmp_path: Path, busybox_store: Path) -> Project:
    subprocess.run(["cp", "-a", str(busybox_store), str(tmp_path / "store")], check=True)
    (tmp_path / "app").mkdir()
    project = Project(tmp_path, piped=False)
    project.dockerfile.write_text(f"FROM busybox\nRUN : one && {MAKES}\nRUN cat /d/g > /copy\n")
    project.build()
    return project


def layers(project: Project, tag: str) -> str:
    return project.lamina("inspect", "--format", "{{json .RootFS.Layers}}", tag).stdout


def test_same_files_at_another_time_are_the_earlier_result(project: Project) -> None:
    # layers have whole seconds: the times come from a secret, which no key has
    times = "find /d /bin -exec touch -h -d @$(cat /run/secrets/at) {} +"
    project.edit(MAKES, f"{MAKES} && {times}")
    project.edit("RUN : one", "RUN --mount=type=secret,id=at : one")

    def build_at(second: str, *flags: str) -> list[str]:
        (project.place / "at").write_text(second)
        return list(project.build("--secret=id=at,src=at", *flags).ran)

    assert len(build_at("1000")) == 2
    project.edit(": one", ": two")
    (ran,) = build_at("2000")
    assert ": two" in ran
    assert layers(project, "app3") == layers(project, "app2")
    assert not build_at("3000")
    # who asks for everything anew gets it
    assert len(build_at("4000", "--no-cache")) == 2
    assert layers(project, "app5") != layers(project, "app2")


@pytest.mark.parametrize(
    "more", ["chmod 700 /d", "chown 1:1 /d/g", "echo SAME > /d/g", "rm /d/e/h", "touch /d/i"]
)
def test_other_files_rerun_what_follows(project: Project, more: str) -> None:
    project.edit("rm /bin/vi", f"rm /bin/vi && {more}")
    assert len(project.build().ran) == 2


def test_an_earlier_layer_that_cannot_be_read_is_not_compared(project: Project) -> None:
    (made,) = [path.parents[1] for path in project.lamina.root.glob("snapshots/*/fs/d/e")]
    made.rename(made.with_name("gone"))  # as if a collector were at it: its row is still there
    project.edit("rm /bin/vi", "rm /bin/vi && touch -d @1000000000 /d/g")
    assert len(project.build().ran) == 2
