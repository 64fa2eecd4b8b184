# SPDX-License-Identifier: Apache-2.0
"""A secret reaches its step and nothing else: no file of the store, event, log, or other step."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.testing.command import Lamina

pytestmark = [pytest.mark.root, pytest.mark.tool("busybox")]

VALUE = "hunter2-correct-horse"
LINES = "-----BEGIN KEY-----\nc2VjcmV0IGtleQ==\n-----END KEY-----"


@pytest.fixture
def lamina(tmp_path: Path, busybox_store: Path) -> Iterator[Lamina]:
    work = tmp_path / "work"
    work.mkdir()
    (work / "token").write_text(VALUE + "\n")
    subprocess.run(["cp", "-a", str(busybox_store), str(tmp_path / "store")], check=True)
    yield Lamina(tmp_path / "store", work)
    shutil.rmtree(tmp_path, ignore_errors=True)


STEPS = """FROM busybox
RUN --mount=type=secret,id=file test "$(cat /run/secrets/file)" = "$(printf {parts})" && \
    test "$(stat -c '%a %u %g' /run/secrets/file)" = "400 0 0" && cat /run/secrets/file
RUN --mount=type=secret,id=env,env=TOKEN printf %s "$TOKEN" | fold -w 5 && echo "$TOKEN" && env
RUN --mount=type=secret,id=key,target=/k,uid=9,gid=8,mode=0440 cat /k && \
    test "$(stat -c '%a %u %g' /k)" = "440 9 8"
RUN test ! -e /run/secrets && test -z "$TOKEN" && ! ls /k
RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent
"""


def build(lamina: Lamina, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    flags = ["--secret=id=file,src=token", "--secret=id=env,env=TOKEN", "--secret=id=key,env=KEY"]
    return lamina(
        "build", *flags, *words, ".", check=check, env={"TOKEN": VALUE + "-env", "KEY": LINES}
    )


def grep_store(lamina: Lamina) -> list[str]:
    """Files of the store, compressed ones too, that hold a secret."""
    found = []
    # os.walk, unlike Path.rglob, goes on when a directory of a running build is gone meanwhile
    names = [Path(top) / name for top, _, names in os.walk(lamina.root) for name in names]
    for path in names:
        try:
            if not path.is_file() or path.is_symlink():
                continue
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        if data[:2] == b"\x1f\x8b":
            data += subprocess.run(
                # a log that is still being written ends in the middle: what is there counts
                ["gzip", "-dc", str(path)],
                capture_output=True,
                check=False,
            ).stdout
        if any(text.encode() in data for text in (VALUE, *LINES.split("\n")[1:2])):
            found.append(str(path))
    return found


@pytest.mark.parametrize("progress", ["plain", "json"])
def test_value_is_in_no_file_and_no_event(lamina: Lamina, progress: str) -> None:
    parts = VALUE.replace("-", "%s") + " - -"  # the Dockerfile does not hold the value itself
    (lamina.cwd / "Dockerfile").write_text(STEPS.format(parts=f"'{parts[:-4]}' - -"))
    done = build(lamina, "-t", "x", f"--progress={progress}", "-o", "type=oci,dest=x.tar", "--load")
    shown = done.stdout + done.stderr
    assert VALUE not in shown
    assert "c2VjcmV0" not in shown
    assert "***" in shown
    assert grep_store(lamina) == []
    for words in (["history", "--no-trunc", "x"], ["inspect", "x"]):
        assert VALUE not in lamina(*words).stdout
    assert VALUE.encode() not in (lamina.cwd / "x.tar").read_bytes()


def test_value_is_not_in_the_error_of_a_failed_step(lamina: Lamina) -> None:
    (lamina.cwd / "Dockerfile").write_text(
        "FROM busybox\nRUN --mount=type=secret,id=env,env=TOKEN echo $TOKEN >&2; false\n"
    )
    done = build(lamina, "--progress=plain", check=False)
    assert done.returncode != 0
    assert VALUE not in done.stderr
    assert "***" in done.stderr


def test_value_is_never_on_the_disk_or_in_the_processes_of_others(lamina: Lamina) -> None:
    """Looked at from outside while the step runs, and from another step at the same time."""
    (lamina.cwd / "Dockerfile").write_text(
        "FROM busybox AS a\n"
        "RUN --mount=type=secret,id=file --mount=type=secret,id=env,env=TOKEN sleep 3\n"
        "FROM busybox AS b\n"
        "RUN sleep 1; cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'; ps; mount; ls /run\n"
        "FROM busybox\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n"
    )
    seen: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            seen.extend(grep_store(lamina))
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    if VALUE.encode() in path.read_bytes():
                        seen.append(str(path))
                except OSError:
                    continue

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        done = build(lamina, "--progress=plain")
    finally:
        over.set()
        watcher.join()
    assert seen == []
    assert VALUE not in done.stderr
    assert not re.search(r"TOKEN=|secrets", re.sub(r"RUN .*", "", done.stderr))


def test_required_secret_that_is_missing_is_an_error_at_its_line(lamina: Lamina) -> None:
    (lamina.cwd / "Dockerfile").write_text(
        "FROM busybox\n\nRUN --mount=type=secret,id=other,required true\n"
    )
    done = build(lamina, check=False)
    assert "Dockerfile:3: secret other: not found" in done.stderr


def test_change_of_a_secret_does_not_run_the_step_again(lamina: Lamina) -> None:
    (lamina.cwd / "Dockerfile").write_text(
        "FROM busybox\nRUN --mount=type=secret,id=file echo it ran\n"
    )
    build(lamina)
    (lamina.cwd / "token").write_text("another value")
    done = build(lamina, "--progress=plain")
    assert "it ran" not in done.stderr.replace("echo it ran", "")


def test_secret_of_a_library_user_is_not_in_a_representation() -> None:
    code = (
        "from lamina.builder.secrets import Secrets; from lamina.builder.options import SolveOptions;"
        f"print(SolveOptions(secrets=Secrets({{}}, {{'s': b'{VALUE}'}})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert VALUE not in done.stdout
    assert "Secrets(['s'])" in done.stdout
