# SPDX-License-Identifier: Apache-2.0
"""Device nodes that come with an image, and are open to everybody by their mode, open nothing."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.testing.command import Lamina, write

pytestmark = [pytest.mark.root, pytest.mark.tool("busybox"), pytest.mark.tool("crun")]

# /dev/zero's numbers: harmless, and no control group forbids them. Of a disk nothing else is true.
ZERO = (1, 5)
LOOK = "if head -c 1 {} > /tmp/got 2> /tmp/why; then echo OPENED; else cat /tmp/why; fi"


def archive() -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name in ("nodes/zero", "volume/zero"):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.CHRTYPE, 0o666
            info.devmajor, info.devminor = ZERO
            tar.addfile(info)
    return raw.getvalue()


@pytest.fixture(params=["directories", "erofs"])
def lamina(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lamina]:
    """A store, in each form of layers, with the image `nodes` that came from elsewhere."""
    (tmp_path / "work").mkdir()
    made = Lamina(tmp_path / "store", tmp_path / "work")
    made.env["LAMINA_LAYERS"] = request.param
    made("bootstrap", "busybox", "-t", "busybox:latest")
    (made.cwd / "nodes.tar").write_bytes(archive())
    write(made.cwd, {"Dockerfile": "FROM busybox\nADD nodes.tar /\nVOLUME /volume\n"})
    made("build", "-t", "nodes", "-o", "type=docker,dest=../nodes.tar", ".")
    made("rmi", "-f", "nodes", check=False)
    made("system", "prune", "-af")
    made("load", "-i", "../nodes.tar")
    made("bootstrap", "busybox", "-t", "busybox:latest")
    yield made
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    shutil.rmtree(tmp_path, ignore_errors=True)


def denied(text: str) -> bool:
    assert text.strip(), "nothing was tried"
    return "OPENED" not in text and all("Permission denied" in line for line in text.splitlines())


@pytest.mark.parametrize("runtime", ["crun", pytest.param("runc", marks=pytest.mark.tool("runc"))])
@pytest.mark.parametrize("user", ["0", "1000"])
@pytest.mark.parametrize("flag", [[], ["--read-only", "--tmpfs=/tmp"]])
def test_container_cannot_open_them(
    lamina: Lamina, runtime: str, user: str, flag: list[str]
) -> None:
    words = ["run", "--runtime", runtime, "--rm", "-u", user, *flag, "nodes", "sh", "-c"]
    assert denied(lamina(*words, LOOK.format("/nodes/zero")).stdout)
    assert denied(lamina(*words, LOOK.format("/volume/zero")).stdout)
    use = "echo x > /dev/null && head -c 1 /dev/zero | wc -c; if mkdir /m 2>&1; then echo made; fi"
    works = lamina(*words, use).stdout.splitlines()
    assert works[0] == "1"
    assert (works[-1] == "made") is (user == "0" and not flag)


def test_process_that_joins_a_container_cannot_open_them(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "cc", "nodes", "sleep", "60")
    try:
        assert denied(lamina("exec", "cc", "sh", "-c", LOOK.format("/nodes/zero")).stdout)
    finally:
        lamina("rm", "-f", "cc")


def test_privileged_container_may_open_them(lamina: Lamina) -> None:
    done = lamina("run", "--rm", "--privileged", "nodes", "sh", "-c", LOOK.format("/nodes/zero"))
    assert done.stdout == "OPENED\n"


PLACES = {
    "root": ("nodes", ""),
    "stage": ("busybox", "--mount=from=nodes,target=/nodes,source=nodes"),
    "writable stage": ("busybox", "--mount=from=nodes,target=/nodes,source=nodes,rw"),
    "whole stage": ("busybox", "--mount=from=nodes,target=/m"),
    "cache": ("busybox", "--mount=type=cache,from=nodes,source=nodes,target=/nodes"),
    "read-only cache": ("busybox", "--mount=type=cache,from=nodes,source=nodes,target=/nodes,ro"),
    "context": ("busybox", "--mount=from=other,target=/nodes,source=nodes"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("user", ["0", "1000"])
def test_step_cannot_open_them(lamina: Lamina, place: str, user: str) -> None:
    base, mount = PLACES[place]
    path = "/m/nodes/zero" if place == "whole stage" else "/nodes/zero"
    look = LOOK.format(path)
    write(
        lamina.cwd, {"Dockerfile": f"FROM {base}\nUSER {user}\nRUN {mount} ls -l {path}; {look}\n"}
    )
    words = ["build", "--progress=plain", "--no-cache"]
    if place == "context":
        subprocess.run(["tar", "-xf", "nodes.tar"], cwd=lamina.cwd, check=True)
        words += ["--build-context", "other=."]
    log = lamina(*words, ".").stderr
    lines = [line.split(" ", 2)[2] for line in log.splitlines() if line.startswith("#") and (
        "Permission denied" in line or line.endswith(" OPENED"))]  # fmt: skip
    assert denied("\n".join(lines)), log
    assert "crw-rw-rw-" in log


def test_insecure_step_may_open_them(lamina: Lamina) -> None:
    look = LOOK.format("/nodes/zero")
    write(lamina.cwd, {"Dockerfile": f"FROM nodes\nRUN --security=insecure {look}\n"})
    log = lamina("build", "--allow=security.insecure", "--progress=plain", ".").stderr
    assert " OPENED\n" in log


def test_they_are_still_in_the_image(lamina: Lamina) -> None:
    write(lamina.cwd, {"Dockerfile": "FROM nodes\nRUN touch /more\n"})
    lamina("build", "-t", "more", "-o", "type=tar,dest=../out.tar", ".")
    with tarfile.open(lamina.cwd.parent / "out.tar") as tar:
        node = next(member for member in tar if member.name.removeprefix("./") == "nodes/zero")
    assert (node.type, node.devmajor, node.devminor) == (tarfile.CHRTYPE, *ZERO)
    facts = dict(line.split(": ", 1) for line in lamina("info").stdout.splitlines() if ": " in line)
    assert facts["Devices"].startswith("those of images cannot be opened")
    assert json.loads(lamina("inspect", "nodes").stdout)
