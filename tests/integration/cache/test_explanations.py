# SPDX-License-Identifier: Apache-2.0
"""What `--explain`, `why`, its files and the views say, beyond single changes."""

from __future__ import annotations

import json

import pytest

from lamina.testing.project import Project

pytestmark = [pytest.mark.root, pytest.mark.tool("crun")]

ONLY_DIRECTORY = pytest.mark.parametrize("built_project", ["directory"], indirect=True)


def change(project: Project) -> None:
    with (project.context / "src/main.c").open("a") as file:
        file.write("more\n")


def test_plain_view_says_why_only_when_asked(project: Project) -> None:
    change(project)
    quiet = project.lamina("build", "--progress=plain", "--target", "builder", "app").stderr
    assert "why:" not in quiet
    change(project)
    told = project.lamina("build", "--progress=plain", "--explain", "app").stderr
    assert "why: bytes of src/main.c changed: " in told
    assert ", in [builder 2/3] COPY src /src" in told


def test_why_tells_of_the_last_build_and_of_one_step(project: Project) -> None:
    change(project)
    project.build()
    text = project.lamina("why").stdout
    assert "6 ran" in text
    assert "bytes of src/main.c changed" in text
    one = project.lamina("why", ":RUN echo done").stdout
    assert one.count("bytes of src/main.c changed") == 1
    rows = json.loads(project.lamina("why", "--format=json").stdout)["steps"]
    causes = {row["cause"] for row in rows if row["outcome"] == "ran"}
    assert causes == {"file-content"}
    assert "never built here" in project.lamina("why", "^1").stdout


def test_two_machines_are_compared_by_a_file(project: Project) -> None:
    first = project.place / "first.json"
    project.lamina("why", "--export", str(first))
    project.build("--build-arg", "VERSION=2")
    text = project.lamina("why", "--against", str(first)).stdout
    assert 'ARG VERSION changed: "1" -> "2"' in text
    assert "[builder 2/3] COPY src /src\n    the same key" in text
    broken = project.place / "broken.json"
    broken.write_text('{"steps": 1}')
    refused = project.lamina("why", "--against", str(broken), check=False)
    assert refused.returncode != 0
    assert "does not hold key trees" in refused.stderr


def test_alternating_builds_are_compared_with_the_nearest_one(project: Project) -> None:
    project.build("--build-arg", "VERSION=2")
    assert not project.build().ran
    change(project)
    built = project.build()
    assert built.why("[builder 2/3]")["cause"] == "file-content"
    assert built.why("[builder 3/3]")["cause"] == "file-content"
    assert {event["more"] for event in built.ran.values()} == {0}


def test_several_differences_are_counted(project: Project) -> None:
    change(project)
    (project.context / "src/new.c").write_text("new\n")
    assert project.build().why("[builder 2/3]")["more"] == 1


def test_values_of_secret_looking_variables_are_not_shown(project: Project) -> None:
    project.edit("ARG VERSION=1", "ARG VERSION=1\nARG API_TOKEN=first")
    project.build()
    project.edit("API_TOKEN=first", "API_TOKEN=second")
    why = project.build().why("[builder 3/3]")
    assert why["cause"], why["subject"] == ("arg", "API_TOKEN")
    assert "second" not in json.dumps({**why, "via": ""})


@ONLY_DIRECTORY
def test_linked_copy_is_followed_through_its_merge(project: Project) -> None:
    project.edit("COPY assets", "COPY --link assets")
    project.build()
    with (project.context / "assets/logo.svg").open("a") as file:
        file.write("more\n")
    built = project.build()
    why = built.why("RUN echo done")
    assert (why["cause"], why["subject"]) == ("file-content", "assets/logo.svg"), why["text"]
    assert "COPY --link assets" in why["via"]


@ONLY_DIRECTORY
def test_named_file_in_a_selection_of_very_many(project: Project) -> None:
    folder = project.context / "assets"
    for part in range(120):
        (folder / f"d{part:03}").mkdir()
        for number in range(100):
            (folder / f"d{part:03}/f{number}").write_text("x")
    project.build()
    (folder / "d077/f5").write_text("y")
    why = project.build().why("COPY assets")
    assert why["cause"] == "files"
    assert why["subject"] == "assets/d077/"


@ONLY_DIRECTORY
def test_step_whose_layers_are_gone_says_so(project: Project) -> None:
    project.lamina("rmi", "-f", "app1")
    for path in (project.lamina.root / "blobs/sha256").iterdir():
        if path.stat().st_size < 4096 and not path.read_bytes().startswith(b"{"):
            path.unlink()
    import sqlite3

    with sqlite3.connect(project.lamina.root / "meta.sqlite") as database:
        database.execute("DELETE FROM layer_blobs")
        database.execute("DELETE FROM snapshots")
    built = project.build(check=False)
    causes = {event["cause"] for event in built.events if event["event"] == "VertexExplained"}
    assert causes == {"pruned"}


@ONLY_DIRECTORY
def test_cost_is_small(project: Project) -> None:
    """A cached build imports nothing of it."""
    probe = (
        "import sys; from lamina.cli.main import main; from lamina.cli import main as m;"
        "sys.argv=['lamina','build','app']; status=m.console();"
        "print([n for n in sys.modules if 'explain' in n], file=sys.stderr); sys.exit(status)"
    )
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", probe],
        env=project.lamina.env,
        cwd=project.place,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip().endswith("[]"), done.stderr
