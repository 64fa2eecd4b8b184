# SPDX-License-Identifier: Apache-2.0
"""Eight builds at once on one store, with garbage collection beside them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from lamina.testing.command import Lamina

pytestmark = [pytest.mark.root, pytest.mark.tool("crun"), pytest.mark.slow]

BUILDS = 8
DOCKERFILE = """\
FROM busybox
RUN echo shared > /shared
COPY own /own
RUN cat /own /shared > /both
"""


@pytest.fixture
def place(tmp_path: Path, busybox_store: Path) -> Path:
    subprocess.run(["cp", "-a", str(busybox_store), str(tmp_path / "alone")], check=True)
    subprocess.run(["cp", "-a", str(busybox_store), str(tmp_path / "store")], check=True)
    for number in range(BUILDS):
        context = tmp_path / f"app{number}"
        context.mkdir()
        (context / "Dockerfile").write_text(DOCKERFILE)
        (context / "own").write_text(f"{number // 2}\n")  # two and two are the same
    return tmp_path


def content_of(lamina: Lamina, name: str) -> str:
    target = lamina.cwd / f"out-{name}"
    shutil.rmtree(target, ignore_errors=True)
    lamina("build", "-o", f"type=local,dest={target}", f"app{name}")
    return (target / "both").read_text()


def test_as_if_each_was_alone(place: Path) -> None:
    lamina = Lamina(place / "store", place)
    running = [
        subprocess.Popen(
            lamina.argv("build", "--progress=json", "-t", f"image{number}", f"app{number}"),
            env=lamina.env, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for number in range(BUILDS)
    ]  # fmt: skip
    collections = 0
    while any(build.poll() is None for build in running):
        lamina("builder", "prune", "-af")
        collections += 1
        if collections > 200:
            break
    events: list[dict[str, object]] = []
    for build in running:
        _, stderr = build.communicate(timeout=100)
        assert build.returncode == 0, stderr.decode()
        events += [json.loads(line) for line in stderr.splitlines()]
    assert collections
    layers = {}
    for number in range(BUILDS):
        document = json.loads(lamina("inspect", f"image{number}").stdout)[0]
        layers[number] = document["RootFS"]["Layers"]
    for number in range(0, BUILDS, 2):
        assert layers[number] == layers[number + 1]
    assert len({tuple(each[:2]) for each in layers.values()}) == 1  # the shared step ran once
    names = {
        event["vertex"]: event["name"] for event in events if event["event"] == "VertexPlanned"
    }
    ran = [
        names[event["vertex"]]
        for event in events
        if event["event"] == "VertexDone" and event["outcome"] == "ran"
    ]
    assert sum("echo shared" in str(name) for name in ran) == 1
    assert sum("COPY own" in str(name) for name in ran) == BUILDS // 2
    assert sum("cat /own" in str(name) for name in ran) == BUILDS // 2
    alone = Lamina(place / "alone", place)
    for number in range(0, BUILDS, 4):
        assert content_of(lamina, str(number)) == content_of(alone, str(number))
