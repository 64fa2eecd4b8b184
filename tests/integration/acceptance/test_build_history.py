# SPDX-License-Identifier: Apache-2.0
"""Records of builds: what is listed, told, kept and entered, with the whole command."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from lamina.testing.command import Lamina
from lamina.testing.waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.tool("crun"), pytest.mark.tool("busybox")]

GOOD = """FROM busybox
ENV GREETING=hello
WORKDIR /srv
RUN echo $GREETING > greeting; echo "made it"; echo "to stderr" >&2
USER nobody
RUN id -un
"""
BAD = """FROM busybox
ENV GREETING=hello
WORKDIR /srv
RUN echo one > one
RUN echo two > two; echo oops >&2; exit 3
"""


def write(lamina: Lamina, text: str) -> None:
    (lamina.cwd / "Dockerfile").write_text(text)


def inspect(lamina: Lamina, build: str = "") -> dict[str, object]:
    words = ["builds", "inspect", "--format", "json", *([build] if build else [])]
    found: dict[str, object] = json.loads(lamina(*words).stdout)
    return found


def ids(lamina: Lamina) -> list[str]:
    return str(lamina("builds", "ls", "-q").stdout).split()


def test_build_is_recorded_with_its_steps_result_and_logs(lamina: Lamina) -> None:
    write(lamina, GOOD)
    lamina("build", "-t", "app", "--build-arg", "X=1", ".")
    listed = lamina("builds").stdout.splitlines()
    assert listed[0].split() == ["BUILD", "ID", "NAME", "STATUS", "CREATED", "DURATION"]
    assert "Completed" in listed[1]
    found = inspect(lamina)
    assert found["Image"] == lamina.id_of("app")
    assert found["Names"] == ["docker.io/library/app:latest"]
    assert found["BuildArgs"] == [{"Name": "X", "Value": "1"}]
    assert [step["Status"] for step in found["Steps"]] == ["cached", "ran", "ran", "ran"]  # type: ignore[attr-defined]  # JSON
    logs = lamina("builds", "logs").stdout
    assert "made it" in logs
    assert "DONE" in logs
    raw = lamina("builds", "logs", "--step", "3")
    assert (raw.stdout, raw.stderr) == ("made it\n", "to stderr\n")
    events = [
        json.loads(line)
        for line in lamina("builds", "logs", "--progress=rawjson").stdout.splitlines()
    ]
    assert {event["event"] for event in events} == {
        "VertexPlanned", "VertexStarted", "VertexExplained", "VertexLog", "VertexDone",
    }  # fmt: skip


def test_cached_build_is_recorded_as_cached(lamina: Lamina) -> None:
    write(lamina, GOOD)
    lamina("build", ".")
    lamina("build", ".")
    found = inspect(lamina)
    assert (found["NumCachedSteps"], found["NumTotalSteps"]) == (4, 4)
    assert lamina("builds", "inspect", "--format", "{{.NumCachedSteps}}").stdout == "4\n"
    assert "100% cached" in lamina("buildx", "history", "inspect").stdout


def test_failed_build_is_recorded_with_its_error(lamina: Lamina) -> None:
    write(lamina, BAD)
    lamina("build", ".", check=False)
    found = inspect(lamina)
    assert found["Status"] == "error"
    assert "exit code: 3" in found["Error"]["Message"]  # type: ignore[index]  # JSON
    assert found["Error"]["Place"] == "Dockerfile:5"  # type: ignore[index]  # JSON
    assert [step["Status"] for step in found["Steps"]][-1] == "failed"  # type: ignore[attr-defined]  # JSON
    assert "oops" in lamina("builds", "logs").stdout


def test_build_of_a_wrong_dockerfile_is_recorded(lamina: Lamina) -> None:
    write(lamina, "FROM busybox\nNOTHING\n")
    lamina("build", ".", check=False)
    found = inspect(lamina)
    assert found["Status"] == "error"
    assert found["Steps"] == []


def start(lamina: Lamina, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        lamina.argv(*words), env=lamina.env, cwd=lamina.cwd,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def wait_for(lamina: Lamina, text: str) -> None:
    def said() -> bool:
        return text in lamina("builds", "logs", check=False).stdout

    wait_until(said, "the step speaks", pause=0.1)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, "killed"), (signal.SIGTERM, "canceled")]
)
def test_build_that_is_stopped_keeps_what_it_said(lamina: Lamina, number: int, status: str) -> None:
    write(lamina, "FROM busybox\nRUN echo begin; sleep 60\n")
    process = start(lamina, "build", ".")
    try:
        wait_for(lamina, "begin")
        assert inspect(lamina)["Status"] == "running"
        refused = lamina("builds", "rm", ids(lamina)[0], check=False)
        assert refused.returncode == 1
        assert "is running" in refused.stderr
    finally:
        process.send_signal(number)
        process.wait(timeout=30)
    found = inspect(lamina)
    assert found["Status"] == status
    assert "begin" in lamina("builds", "logs").stdout
    assert lamina("builds", "--filter", f"status={status}", "-q").stdout.split() == ids(lamina)


def test_records_are_removed_by_name_and_all_at_once(lamina: Lamina) -> None:
    write(lamina, GOOD)
    for _ in range(3):
        lamina("build", ".")
    first, *rest = ids(lamina)
    assert lamina("builds", "rm", first[:6]).stdout == f"{first}\n"
    assert ids(lamina) == rest
    missing = lamina("builds", "rm", "zzzz", check=False)
    assert missing.returncode == 1
    assert "no such build: zzzz" in missing.stderr
    lamina("builds", "rm", "--all")
    assert ids(lamina) == []
    assert list((lamina.root / "builds").iterdir()) == []


@pytest.mark.host_root("a program of root uses the store")
def test_only_the_newest_records_are_kept(lamina: Lamina) -> None:
    write(lamina, "FROM busybox\nRUN echo x\n")
    script = (
        "import sys\n"
        "from lamina.app import history\n"
        "history.MAX_RECORDS = 3\n"
        "from lamina.cli.main import main, console\n"
        "sys.exit(console())\n"
    )
    import sys

    for _ in range(5):
        subprocess.run(
            [sys.executable, "-c", script, "build", "."], env=lamina.env, cwd=lamina.cwd,
            capture_output=True, check=True,
        )  # fmt: skip
    assert len(ids(lamina)) == 3
    files = {path.name.removesuffix(".gz") for path in (lamina.root / "builds").iterdir()}
    assert files <= set(ids(lamina))


def test_step_is_entered_with_its_environment_user_and_directory(lamina: Lamina) -> None:
    write(lamina, GOOD)
    lamina("build", ".")
    build = ids(lamina)[0]
    assert lamina("enter", f"{build[:8]}:3", "cat", "greeting").stdout == "hello\n"
    assert lamina("enter", f"{build[:8]}:4", "id", "-un").stdout == "nobody\n"
    assert lamina("enter", ":3", "sh", "-c", "echo $GREETING; pwd").stdout == "hello\n/srv\n"
    assert lamina("enter", ":2", "ls").stdout == ""
    assert lamina("enter", ":id -un", "true").returncode == 0
    assert lamina("enter", ":3", "sh", "-c", "exit 7", check=False).returncode == 7
    assert lamina("enter", "-u", "root", "-w", "/", ":4", "sh", "-c", "id -un; pwd").stdout == (
        "root\n/\n"
    )
    assert lamina("ps", "-aq").stdout == "", "the containers are thrown away"
    missing = lamina("enter", ":9", "true", check=False)
    assert missing.returncode == 125
    assert "has no step '9'" in missing.stderr


def test_intermediate_step_of_a_cached_build_is_entered(lamina: Lamina) -> None:
    write(lamina, GOOD)
    lamina("build", ".")
    lamina("build", ".")
    assert lamina("enter", ":3", "cat", "greeting").stdout == "hello\n"


def test_failed_step_is_entered_at_its_input_even_after_garbage_collection(
    lamina: Lamina,
) -> None:
    write(lamina, BAD)
    lamina("build", ".", check=False)
    from lamina.store import open_store
    from lamina.store.gc import collect
    from lamina.store.local import LocalStore

    store = open_store(str(lamina.root))
    assert isinstance(store, LocalStore)
    collect(store, keep_cache=False)
    store.close()
    assert lamina("enter", "", "ls").stdout == "one\n"
    lamina("builds", "rm", "--all")
    store = open_store(str(lamina.root))
    assert isinstance(store, LocalStore)
    assert collect(store, keep_cache=False).snapshots > 0
    store.close()


def test_on_fail_shell_opens_a_shell_in_the_failed_steps_files(lamina: Lamina) -> None:
    write(lamina, BAD)
    done = lamina(
        "build",
        "--on-fail=shell",
        ".",
        check=False,
        stdin=b"pwd; cat two; echo $GREETING; exit 9\n",
    )
    assert done.returncode == 1, "the status is the build's, not the shell's"
    assert done.stdout == "/srv\ntwo\nhello\n"
    assert "exit code: 3" in done.stderr
    assert lamina("enter", "", "cat", "two").stdout == "two\n", "the failed step's files are kept"
    assert lamina("ps", "-aq").stdout == ""


def test_on_fail_shell_has_a_terminal_at_a_terminal(lamina: Lamina) -> None:
    write(lamina, BAD)
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(lamina.cwd)
        os.execvpe(  # a child on a pty of its own
            lamina.argv()[0], lamina.argv("build", "--progress=plain", "--on-fail=shell", "."),
            lamina.env,
        )  # fmt: skip
    seen = b""
    end = time.monotonic() + 60
    sent = False
    while time.monotonic() < end:
        if select.select([fd], [], [], 0.2)[0]:
            try:
                seen += os.read(fd, 65536)
            except OSError:
                break
        if not sent and b"leave it to end the build" in seen and b"#" in seen.split(b"build")[-1]:
            os.write(fd, b"tty && cat two && exit\n")
            sent = True
    _, status = os.waitpid(pid, 0)
    os.close(fd)
    assert os.waitstatus_to_exitcode(status) == 1, seen
    assert b"/dev/" in seen.split(b"leave it to end")[-1]
    assert b"two\r\n" in seen


def test_on_fail_shell_is_not_opened_when_the_build_reads_standard_input(lamina: Lamina) -> None:
    done = lamina("build", "--on-fail=shell", "-", check=False, stdin=b"FROM busybox\n")
    assert done.returncode == 125
    assert "needs standard input" in done.stderr


def test_history_survives_a_torn_file(lamina: Lamina) -> None:
    write(lamina, GOOD)
    lamina("build", ".")
    path: Path = next((lamina.root / "builds").iterdir())
    path.write_bytes(path.read_bytes()[:-40])
    assert "made it" in lamina("builds", "logs").stdout
    path.write_bytes(b"not gzip at all")
    assert lamina("builds", "logs").stdout == ""
    path.unlink()
    assert inspect(lamina)["Status"] == "completed"


MOUNTING = """FROM busybox AS other
RUN echo from a stage > /file
FROM busybox
WORKDIR /srv
RUN --mount=type=bind,from=other,source=/file,target=/bound --mount=type=bind,target=/context \\
  --mount=type=cache,target=/cache --mount=type=tmpfs,target=/memory \\
  --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN \\
  echo kept > /cache/note && exit 3
"""


def test_on_fail_shell_has_what_the_step_mounted(lamina: Lamina) -> None:
    write(lamina, MOUNTING)
    (lamina.cwd / "in-context").write_text("context\n")
    secret = "it's a hunter2-secret"
    script = (
        "cat /bound /context/in-context /cache/note; grep -c ' /memory tmpfs' /proc/mounts;"
        ' cat /run/secrets/token; echo; echo "$TOKEN"; tr "\\0" "\\n" < /proc/1/cmdline\n'
    )
    done = lamina(
        "build", "--on-fail=shell", "--secret", "id=token,env=VALUE", ".",
        check=False, stdin=script.encode(), env={"VALUE": secret},
    )  # fmt: skip
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[:6] == ["from a stage", "context", "kept", "1", secret, secret], done.stderr
    assert lines[6:] == ["/bin/sh"]
    found = subprocess.run(
        ["grep", "-rlF", "hunter2", str(lamina.root)], capture_output=True, text=True, check=False
    )
    assert found.stdout == ""
    assert str(lamina.root) not in Path("/proc/mounts").read_text()
    again = lamina("enter", "", "ls", "/cache", check=False)
    assert "No such file" in again.stderr, "what was mounted is not among the step's files"
