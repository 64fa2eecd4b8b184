# SPDX-License-Identifier: Apache-2.0
"""`contexts` of bake targets: other targets, directories and images behind names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lamina.testing.command import Lamina

pytest.importorskip("hcl2")
pytestmark = [pytest.mark.root, pytest.mark.tool("crun"), pytest.mark.tool("busybox")]

BAKE = """
target "lib" {
  context = "lib"
  labels = { from = "lib" }
}
target "app" {
  context = "app"
  contexts = { base = "target:lib", assets = "assets", tools = "docker-image://busybox" }
  tags = ["app:1"]
}
target "second" {
  context = "app"
  dockerfile-inline = "FROM app AS again\\nCOPY --from=lib /made /copied\\n"
  contexts = { app = "target:app", lib = "target:lib" }
  tags = ["second:1"]
}
"""
LIB = """FROM busybox
ENV COLOUR=blue
RUN cat /proc/sys/kernel/random/uuid > /made
ONBUILD ENV TRIGGERED=yes
USER 7
"""
APP = """FROM base
USER 0
RUN echo "$COLOUR $TRIGGERED" > /colour
COPY --from=assets logo /logo
COPY --from=tools /bin/busybox /tool
"""


@pytest.fixture
def project(lamina: Lamina) -> Lamina:
    files = {
        "docker-bake.hcl": BAKE,
        "lib/Dockerfile": LIB,
        "app/Dockerfile": APP,
        "assets/logo": "logo\n",
    }
    for name, text in files.items():
        path = lamina.cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return lamina


def cat(lamina: Lamina, image: str, path: str) -> str:
    return str(lamina("run", "--rm", image, "cat", path).stdout)


def test_target_stands_on_another_with_its_files_and_config(project: Lamina) -> None:
    done = project("bake", "--progress=json", "app", "second")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    names = [event["name"] for event in events if event["event"] == "VertexPlanned"]
    assert len([name for name in names if "uuid" in name]) == 1
    assert cat(project, "app:1", "/colour") == "blue yes\n"
    assert cat(project, "app:1", "/logo") == "logo\n"
    assert cat(project, "second:1", "/copied") == cat(project, "app:1", "/made")
    assert "app" in project("images").stdout
    assert "lib" not in project("images").stdout, "a target that is only linked has no name"
    found = json.loads(project("inspect", "app:1").stdout)[0]
    assert found["Config"]["Labels"] == {"from": "lib"}
    assert found["Config"]["User"] == "0"
    below = found["RootFS"]["Layers"]
    layers = json.loads(project("inspect", "second:1").stdout)[0]["RootFS"]["Layers"]
    assert layers[: len(below)] == below
    assert len(layers) == len(below) + 1


def test_second_bake_is_cached(project: Lamina) -> None:
    project("bake", "second")
    before = project.id_of("second:1")
    again = project("bake", "second")
    assert " DONE " not in again.stderr
    assert project.id_of("second:1") == before


def test_linked_image_is_what_two_builds_give(project: Lamina) -> None:
    project("bake", "app")
    project("build", "-t", "lib:1", "--label", "from=lib", "lib")
    done = project(
        "build", "-t", "apart:1", "--build-context", "base=docker-image://lib:1",
        "--build-context", "assets=assets", "--build-context", "tools=docker-image://busybox", "app",
    )  # fmt: skip
    assert done.returncode == 0
    rows = [json.loads(project("inspect", name).stdout)[0] for name in ("app:1", "apart:1")]
    assert rows[0]["Config"] == rows[1]["Config"]
    assert len(rows[0]["RootFS"]["Layers"]) == len(rows[1]["RootFS"]["Layers"])


def test_what_a_context_may_not_be_is_refused(project: Lamina) -> None:
    bake = project.cwd / "docker-bake.hcl"
    bake.write_text('target "a" {\n contexts = { b = "nowhere" }\n context = "app"\n}\n')
    done = project("bake", "a", check=False)
    assert done.returncode != 0
    assert "target a: build context b: nowhere does not exist" in done.stderr
    bake.write_text('target "a" {\n contexts = { b = "target:z" }\n context = "app"\n}\n')
    done = project("bake", "a", check=False)
    assert done.returncode != 0
    assert "failed to find target z" in done.stderr


def test_platform_that_the_linked_target_lacks_is_refused(project: Lamina) -> None:
    bake = BAKE.replace('context = "lib"', 'context = "lib"\n  platforms = ["linux/arm64"]')
    (project.cwd / "lib" / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /made\n")
    (project.cwd / "docker-bake.hcl").write_text(bake)
    done = project("bake", "app", check=False)
    assert done.returncode != 0
    assert "is a target that is built for linux/arm64, not for" in done.stderr
    assert "Dockerfile:1" in done.stderr


def test_check_of_a_target_needs_no_result_of_another(project: Lamina) -> None:
    done = project("bake", "--call=check", "app")
    assert done.returncode == 0, done.stderr


def test_directory_of_the_project(tmp_path: Path, project: Lamina) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "logo").write_text("other\n")
    project("bake", "app", "--set", f"app.contexts.assets={tmp_path}/elsewhere")
    assert cat(project, "app:1", "/logo") == "other\n"
