# SPDX-License-Identifier: Apache-2.0
"""What the build command promises: caching, reproducibility, parallel stages, errors."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from lamina.testing.command import Lamina, write
from lamina.testing.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.tool("crun"), pytest.mark.tool("busybox")]

APP = """FROM busybox
LABEL team=one
RUN echo installed > /installed
COPY . /app
WORKDIR /app
RUN cat app.txt > built.txt
EXPOSE 8000
CMD ["cat", "built.txt"]
"""


def outcomes(stderr: str) -> dict[str, str]:
    """Vertex name -> outcome, from `--progress=json`."""
    names: dict[str, str] = {}
    found: dict[str, str] = {}
    for line in stderr.splitlines():
        event = json.loads(line)
        if event["event"] == "VertexPlanned":
            names[event["vertex"]] = event["name"].split("] ", 1)[1]
        if event["event"] == "VertexDone":
            assert names[event["vertex"]] not in found, "a vertex ended twice"
            found[names[event["vertex"]]] = event["outcome"]
    assert set(found) == set(names.values()), "a vertex never ended"
    return found


def build(lamina: Lamina, *words: str) -> dict[str, str]:
    done = lamina("build", "--progress=json", "-t", "app", *words, ".")
    return outcomes(done.stderr)


def test_unchanged_rebuild_is_cached_and_gives_the_same_image(lamina: Lamina) -> None:
    write(lamina.cwd, {"Dockerfile": APP, "app.txt": "one\n"})
    first = build(lamina)
    before = lamina.id_of("app")
    again = build(lamina)
    assert {"ran", "cached"} >= set(first.values())
    assert set(again.values()) == {"cached"}
    assert lamina.id_of("app") == before
    assert lamina("run", "--rm", "app").stdout == "one\n"


def test_changed_file_reruns_its_copy_and_what_follows_only(lamina: Lamina) -> None:
    write(lamina.cwd, {"Dockerfile": APP, "app.txt": "one\n"})
    build(lamina)
    write(lamina.cwd, {"app.txt": "two\n"})
    again = build(lamina)
    assert again["RUN echo installed > /installed"] == "cached"
    assert again["COPY . /app"] == "ran"
    assert again["RUN cat app.txt > built.txt"] == "ran"
    assert lamina("run", "--rm", "app").stdout == "two\n"


def test_changed_cmd_rebuilds_no_layer(lamina: Lamina) -> None:
    write(lamina.cwd, {"Dockerfile": APP, "app.txt": "one\n", ".dockerignore": "Dockerfile\n"})
    build(lamina)
    layers = lamina("inspect", "--format", "{{json .RootFS.Layers}}", "app").stdout
    write(lamina.cwd, {"Dockerfile": APP.replace('"cat", "built.txt"', '"cat", "app.txt"')})
    again = build(lamina)
    assert set(again.values()) == {"cached"}
    assert lamina("inspect", "--format", "{{json .RootFS.Layers}}", "app").stdout == layers
    assert lamina("inspect", "--format", "{{json .Config.Cmd}}", "app").stdout == (
        '["cat","app.txt"]\n'
    )


def test_builds_in_two_directories_are_byte_identical(lamina: Lamina, tmp_path: Path) -> None:
    dockerfile = """FROM busybox
RUN mkdir -p /data/a /data/b && echo x > /data/a/x && ln -s a /data/c && ln /data/a/x /data/y
COPY . /srv/
RUN rm /data/y && chmod 4755 /data/a/x && touch /data/late
WORKDIR /new/dir
ENV A=1
"""
    epoch = {"SOURCE_DATE_EPOCH": "1700000000"}
    digests = []
    for number in (1, 2):
        folder = tmp_path / f"checkout{number}"
        write(folder, {"Dockerfile": dockerfile, "z.txt": "z", "dir/b.txt": "b", "dir/a.txt": "a"})
        os.utime(folder / "z.txt", (1_800_000_000 + number, 1_800_000_000 + number))
        lamina("build", "--no-cache", "-t", f"app{number}", str(folder), env=epoch)
        digests.append(lamina.id_of(f"app{number}"))
        built = time.time()  # another second on every clock that could leak in
        wait_until(lambda built=built: time.time() > built + 1)  # type: ignore[misc]  # bound now
    assert digests[0] == digests[1]


def test_independent_stages_run_side_by_side(lamina: Lamina) -> None:
    meet = (
        "--mount=type=cache,target=/meet touch /meet/{n}; i=0; "
        "until [ $(ls /meet | wc -l) = 4 ]; do i=$((i+1)); [ $i -lt 600 ] || exit 1; sleep 0.1; done"
    )
    stages = "".join(
        f"FROM busybox AS s{n}\nRUN {meet.format(n=n)}; echo {n} > /out{n}\n" for n in range(4)
    )
    copies = "".join(f"COPY --from=s{n} /out{n} /\n" for n in range(4))
    write(lamina.cwd, {"Dockerfile": f"{stages}FROM busybox\n{copies}"})
    build(lamina)  # each waits for all of them


def test_stage_that_the_target_does_not_need_is_skipped(lamina: Lamina) -> None:
    write(
        lamina.cwd,
        {"Dockerfile": "FROM busybox AS unused\nRUN false\nFROM busybox\nRUN true\n"},
    )
    assert "RUN false" not in build(lamina)


def test_failing_run_names_line_status_and_output_and_keeps_earlier_steps(lamina: Lamina) -> None:
    dockerfile = "FROM busybox\nRUN echo kept > /kept\nRUN echo to-stdout; echo why >&2; exit 7\n"
    write(lamina.cwd, {"Dockerfile": dockerfile})
    failed = lamina("build", "--progress=plain", "-t", "app", ".", check=False)
    assert failed.returncode == 1
    assert "exit code: 7" in failed.stderr
    assert "Dockerfile:3" in failed.stderr
    assert ">>> RUN echo to-stdout" in failed.stderr
    assert failed.stderr.count("why") >= 2, "once in the log, once in the report"
    assert lamina("images", "-q", "app").stdout == ""
    write(lamina.cwd, {"Dockerfile": dockerfile.replace("exit 7", "exit 0")})
    assert build(lamina)["RUN echo kept > /kept"] == "cached"


@pytest.mark.parametrize(
    ("dockerfile", "status", "texts"),
    [
        ("FROM busybox\nFRUN true\n", 2, ["Dockerfile:2", "FRUN", ">>> FRUN true"]),
        ("FROM busybox\nCOPY missing.txt /\n", 3, ["Dockerfile:2", "missing.txt"]),
        ("FROM 127.0.0.1:1/no:such\nRUN true\n", 7, ["Dockerfile:1", "1/no:such", "reach"]),
        ("FROM busybox\nRUN --device=vendor.example/gpu true\n", 8, ["Dockerfile:2", "--device"]),
        ("RUN true\n", 2, ["Dockerfile:1"]),
        ("", 2, ["Dockerfile"]),
    ],
)
def test_bad_dockerfile_gives_one_error_with_its_line(
    lamina: Lamina, dockerfile: str, status: int, texts: list[str]
) -> None:
    write(lamina.cwd, {"Dockerfile": dockerfile})
    failed = lamina("build", "--progress=plain", "-t", "app", ".", check=False)
    assert failed.returncode == status, failed.stderr
    for text in texts:
        assert text in failed.stderr
    assert failed.stderr.count("lamina: ") == 1


def test_context_that_does_not_exist_is_one_error(lamina: Lamina) -> None:
    failed = lamina("build", "no-such-directory", check=False)
    assert failed.returncode == 3
    assert "no-such-directory" in failed.stderr


def test_outputs_write_archives_and_directories(lamina: Lamina, tmp_path: Path) -> None:
    write(lamina.cwd, {"Dockerfile": "FROM scratch\nCOPY a.txt /x/\n", "a.txt": "hello\n"})
    lamina("build", "-o", f"type=local,dest={tmp_path}/out", ".")
    assert (tmp_path / "out/x/a.txt").read_text() == "hello\n"
    lamina("build", "-o", f"type=tar,dest={tmp_path}/out.tar", ".")
    lamina("build", "-t", "app", "-o", f"type=oci,dest={tmp_path}/oci.tar", ".")
    lamina("build", "-t", "app", "-o", f"type=docker,dest={tmp_path}/docker.tar", ".")
    for name in ("out.tar", "oci.tar", "docker.tar"):
        assert (tmp_path / name).stat().st_size > 1024
    lamina("load", "-i", str(tmp_path / "docker.tar"))
    assert lamina("images", "-q", "app").stdout != ""


def test_dockerfile_and_context_come_from_standard_input(lamina: Lamina) -> None:
    lamina("build", "-t", "app", "-", stdin=b"FROM busybox\nRUN echo piped > /p\n")
    assert lamina("run", "--rm", "app", "cat", "/p").stdout == "piped\n"
    write(lamina.cwd, {"a.txt": "in context\n"})
    lamina("build", "-t", "app", "-f", "-", ".", stdin=b"FROM busybox\nCOPY a.txt /p\n")
    assert lamina("run", "--rm", "app", "cat", "/p").stdout == "in context\n"


def test_iidfile_and_quiet_give_the_image_id(lamina: Lamina, tmp_path: Path) -> None:
    write(lamina.cwd, {"Dockerfile": "FROM busybox\n"})
    done = lamina("build", "-q", "--iidfile", str(tmp_path / "iid"), "-t", "app", ".")
    assert done.stdout.strip() == lamina.id_of("app") == (tmp_path / "iid").read_text().strip()


@pytest.mark.host_root("what root mounts now is not seen by the user")
def test_full_disk_is_one_error_and_no_name(lamina: Lamina, tmp_path: Path) -> None:
    import subprocess

    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "small", str(small)], check=True)
    try:
        subprocess.run(["cp", "-a", str(lamina.root), str(small / "store")], check=True)
        tiny = Lamina(small / "store", lamina.cwd)
        dockerfile = "FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=64\n"
        write(lamina.cwd, {"Dockerfile": dockerfile, "random": ""})
        failed = tiny("build", "-t", "app", ".", check=False)
        assert failed.returncode != 0
        write(lamina.cwd, {"Dockerfile": "FROM busybox\nCOPY random /\n"})
        (lamina.cwd / "random").write_bytes(os.urandom(32 << 20))
        failed = tiny("build", "-t", "app", ".", check=False)
        assert failed.returncode == 9
        assert "No space left" in failed.stderr or "full" in failed.stderr
        assert tiny("images", "-q", "app").stdout == ""
        (lamina.cwd / "random").write_bytes(b"small")
        tiny("build", "-t", "app", ".")
    finally:
        subprocess.run(["umount", str(small)], check=True)
        shutil.rmtree(small, ignore_errors=True)
