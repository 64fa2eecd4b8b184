# SPDX-License-Identifier: Apache-2.0
"""Files, stacks and chains that are much longer than usual: they build, or one error names the bound."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from lamina.spec.identity import MAX_LAYERS
from lamina.testing.command import Lamina, write

pytestmark = [pytest.mark.root, pytest.mark.tool("crun"), pytest.mark.tool("busybox")]


def build(lamina: Lamina, text: str, *words: str, open_files: int = 1024, ok: bool = True) -> str:
    """Build with so many files allowed to be open; what it printed."""
    write(lamina.cwd, {"Dockerfile": text, "f": "content\n"})
    done = subprocess.run(
        [
            "sh",
            "-c",
            f'ulimit -Sn {open_files}; exec "$@"',
            "sh",
            *lamina.argv("build", *words, "."),
        ],
        env=lamina.env,
        cwd=lamina.cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert (done.returncode == 0) is ok, done.stderr[-2000:]
    return done.stderr


@pytest.mark.parametrize(
    "step", ["WORKDIR /d{}", "COPY f /f{}", "COPY --link f /f{}", "RUN echo {}"]
)
@pytest.mark.parametrize("count", [1050, 5000])
def test_more_layers_than_can_be_mounted_are_refused_before_anything_runs(
    lamina: Lamina, step: str, count: int
) -> None:
    text = "FROM busybox\n" + "".join(step.format(n) + "\n" for n in range(count))
    log = build(lamina, text, "--progress=plain", ok=False)
    assert f"Dockerfile:{MAX_LAYERS + 1}: a stage of more than {MAX_LAYERS} layers" in log
    assert "DONE" not in log


def test_as_many_layers_as_can_be_mounted_are_built_and_run(lamina: Lamina) -> None:
    copies = "".join(f"COPY f /f{n}\n" for n in range(MAX_LAYERS - 2))
    text = f"FROM busybox\n{copies}RUN cat /f0 /f{MAX_LAYERS - 3} > /both\n"
    build(lamina, text, "-t", "high")
    assert lamina("run", "--rm", "high", "cat", "/both").stdout == "content\ncontent\n"
    again = build(lamina, text, "-t", "high", "--progress=plain")
    assert "DONE" not in again


def test_instructions_without_layers_have_no_bound_of_their_own(lamina: Lamina) -> None:
    lines = [
        f"ENV A{n}=b\nARG B{n}=c\nSHELL ['sh', '{n}']\n".replace("'", '"') for n in range(1700)
    ]
    build(lamina, "FROM busybox\n" + "".join(lines), "-t", "long")
    assert "A1699=b" in json.loads(lamina("inspect", "long").stdout)[0]["Config"]["Env"]


def test_chain_of_stages_that_copy_from_the_one_before(lamina: Lamina) -> None:
    """Each stage stays open to be copied from: more of them than files may be."""
    stages = ["FROM busybox AS s0\nCOPY f /f0\n"]
    stages += [f"FROM scratch AS s{n + 1}\nCOPY --from=s{n} /f{n} /f{n + 1}\n" for n in range(600)]
    last = 'FROM busybox\nCOPY --from=s600 /f600 /f\nRUN test "$(ulimit -Sn)" = 512\n'
    text = "".join([*stages, last])
    build(lamina, text, "-t", "chain", open_files=512)
    assert lamina("run", "--rm", "chain", "cat", "/f").stdout == "content\n"
    assert "DONE" not in build(lamina, text, "--progress=plain", open_files=512)
    changed = text.replace("COPY f /f0", "COPY --chmod=600 f /f0")
    assert "s600" in build(lamina, changed, "--explain", open_files=512)
    assert lamina("why").stdout


def test_chain_of_stages_that_stand_on_the_one_before(lamina: Lamina) -> None:
    stages = "".join(f"FROM s{n} AS s{n + 1}\nENV A{n}=b\n" for n in range(1000))
    build(lamina, f"FROM busybox AS s0\nCOPY f /f\n{stages}", "-t", "chain")
    assert lamina("run", "--rm", "chain", "sh", "-c", "echo $A0$A999").stdout == "bb\n"


def test_steps_and_copies_in_turn_keep_few_files_open(lamina: Lamina) -> None:
    turns = "".join(f"RUN echo {n} > /r{n}\nCOPY f /f{n}\n" for n in range(40))
    build(lamina, f"FROM busybox\n{turns}", "-t", "turns", open_files=256)
    assert lamina("run", "--rm", "turns", "sh", "-c", "cat /r39 /f39").stdout == "39\ncontent\n"


def archive_of_many_layers(path: Path, count: int) -> None:
    """An image archive as `docker save` writes it, of `count` layers with a file each."""
    members: dict[str, bytes] = {}
    names, diff_ids = [], []
    for number in range(count):
        raw = tarfile.TarInfo(f"f{number}").tobuf(tarfile.USTAR_FORMAT) + bytes(1024)
        diff_ids.append("sha256:" + hashlib.sha256(raw).hexdigest())
        names.append(f"{number}/layer.tar")
        members[names[-1]] = raw
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers"}}
    config["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    members["config.json"] = json.dumps(config).encode()
    entry = {"Config": "config.json", "RepoTags": ["high:latest"], "Layers": names}
    members["manifest.json"] = json.dumps([entry]).encode()
    with tarfile.open(path, "w") as tar:
        for name, raw in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))


def test_image_of_more_layers_than_can_be_mounted_is_kept_and_refused_where_it_is_mounted(
    lamina: Lamina, tmp_path: Path
) -> None:
    archive_of_many_layers(tmp_path / "high.tar", 1200)
    lamina("load", "-i", str(tmp_path / "high.tar"))
    for text, place in (
        ("FROM high\nRUN true\n", "Dockerfile:2"),
        ("FROM scratch\nCOPY --from=high f0 /\n", "Dockerfile:2"),
    ):
        log = build(lamina, text, ok=False)
        assert place in log
        assert str(MAX_LAYERS) in log
    done = lamina("run", "--rm", "high", "true", check=False)
    assert done.returncode == 125
    assert f"1200 layers: overlayfs can stack at most {MAX_LAYERS}" in done.stderr
    build(lamina, "FROM high\nLABEL a=b\n", "-t", "labelled")
    lamina("save", "-o", str(tmp_path / "again.tar"), "labelled")
    assert lamina("history", "-q", "high").returncode == 0
    lamina("rmi", "high", "labelled")
    lamina("system", "prune", "-af")
    assert "sound" in lamina("system", "fsck").stderr
