# SPDX-License-Identifier: Apache-2.0
"""An ordinary user's containers: started by one command, looked at and ended by others."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from lamina.testing.ordinary import UID, OrdinaryLamina
from lamina.testing.terminal import Terminal
from lamina.testing.waiting import wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.tool("crun", "nsenter", "setpriv", "newuidmap", "busybox"),
]

# becomes ready when it has made files of other owners; ends on SIGTERM
SERVICE = (
    "mkdir /closed && touch /closed/f && chown -R 77:77 /closed && chmod 700 /closed && echo ready; "
    "trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done"
)


def start(lamina: OrdinaryLamina, *flags: str) -> str:
    """A container that is ready; its id."""
    id = lamina("run", "-d", *flags, "busybox", "sh", "-c", SERVICE).stdout.strip()
    wait_until(lambda: "ready" in lamina("logs", id).stdout, "the container is ready")
    return id


def processes(lamina: OrdinaryLamina) -> list[str]:
    """Command lines of the user's processes that name the test's store."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                text = file.read().decode().replace("\0", " ")
            status = os.stat(f"/proc/{pid}")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if status.st_uid == UID and str(lamina.root) in text:
            found.append(text)
    return found


def wait_until_alone(lamina: OrdinaryLamina) -> None:
    wait_until(lambda: not processes(lamina), "no process of the store is left")


def test_life_of_a_container(lamina: OrdinaryLamina) -> None:
    id = start(lamina, "--name", "one")
    assert lamina("ps", "--format", "{{.Names}} {{.State}}").stdout == "one running\n"
    assert lamina("exec", "one", "id", "-u").stdout == "0\n"
    assert lamina("exec", "-u", "77", "one", "ls", "/closed").stdout == "f\n"
    assert lamina("exec", "one", "false", check=False).returncode == 1
    lamina("stop", "one")
    assert lamina("logs", "one").stdout == "ready\nbye\n"
    assert lamina("inspect", "-f", "{{.State.ExitCode}}", "one").stdout == "3\n"
    lamina("ps", "-as")
    lamina("start", "one")
    assert lamina("exec", "one", "stat", "-c", "%u", "/closed/f").stdout == "77\n"
    lamina("rm", "-f", "one")
    assert not (lamina.store_seen / "containers" / id).exists()
    wait_until_alone(lamina)


@pytest.mark.parametrize("runs", [True, False])
def test_copies_keep_to_who_owns_what(lamina: OrdinaryLamina, runs: bool) -> None:
    id = start(lamina)
    if not runs:
        lamina("stop", id)
    lamina.write({"mine": "text\n"})
    lamina("cp", "mine", f"{id}:/closed/in")
    lamina("cp", f"{id}:/closed/in", "out")
    assert (lamina.seen / "out").read_text() == "text\n"
    assert (lamina.seen / "out").stat().st_uid == UID
    lamina("start", id)
    assert lamina("exec", id, "stat", "-c", "%u", "/closed/in").stdout == "0\n"


def test_volumes_keep_the_owners_of_the_image(lamina: OrdinaryLamina) -> None:
    lamina.write(
        {"Dockerfile": "FROM busybox\nRUN mkdir /v && touch /v/f && chown 9:9 /v/f\nVOLUME /v\n"}
    )
    lamina("build", "-t", "made", ".")
    assert lamina("run", "--rm", "made", "stat", "-c", "%u", "/v/f").stdout == "9\n"


def test_commit_keeps_the_owners_that_the_container_sees(lamina: OrdinaryLamina) -> None:
    script = "mkdir /d && touch /d/f /mine && chown -R 77:78 /d && chmod 700 /d"
    lamina("run", "--name=it", "busybox", "sh", "-c", script)
    lamina("commit", "it", "made")
    show = ("stat", "-c", "%u:%g", "/d/f", "/mine")
    assert lamina("run", "--rm", "made", *show).stdout.split() == ["77:78", "0:0"]


def test_bind_mounts_show_the_users_files_as_roots(lamina: OrdinaryLamina) -> None:
    lamina.write({"shared/mine": "text\n"})
    path = f"{lamina.directory}/shared"
    out = lamina(
        "run", "--rm", "-v", f"{path}:/s", "busybox", "sh", "-c", "stat -c %u /s/mine; id > /s/new"
    )
    assert out.stdout == "0\n"
    assert (lamina.seen / "shared/new").stat().st_uid == UID


def test_a_limit_that_nothing_enforces_is_refused_by_name(lamina: OrdinaryLamina) -> None:
    failed = lamina("run", "--rm", "--memory", "100m", "busybox", "true", check=False)
    assert failed.returncode == 125
    assert "--memory cannot be enforced" in failed.stderr


def test_a_terminal(lamina: OrdinaryLamina) -> None:
    lamina("run", "-dt", "--name", "tty", "busybox", "sh", "-c", "tty; stat -c %a $(tty)")
    lamina("wait", "tty")
    assert lamina("logs", "tty").stdout.split() == ["/dev/pts/0", "620"]


@pytest.mark.parametrize("victim", ["monitor", "init"])
def test_after_kill_9_nothing_is_left(lamina: OrdinaryLamina, victim: str) -> None:
    id = start(lamina)
    inspected = lamina("inspect", "-f", "{{.State.Pid}}", id).stdout.strip()
    monitor = int(lamina.in_user("cat", f"/proc/{inspected}/status").split("PPid:")[1].split()[0])
    os.kill(monitor if victim == "monitor" else int(inspected), signal.SIGKILL)
    if victim == "monitor":
        wait_until(lambda: "orphan" in lamina("ps", "-a").stdout, "the loss is seen")
        assert lamina("exec", id, "echo", "still").stdout == "still\n"
    lamina("rm", "-f", id)
    assert lamina("ps", "-aq").stdout == ""
    wait_until_alone(lamina)
    lamina("system", "prune", "-af")
    assert list((lamina.store_seen / "snapshots").iterdir()) == []


def test_killed_build_leaves_no_process(lamina: OrdinaryLamina) -> None:
    lamina.write({"Dockerfile": "FROM busybox\nRUN echo running; sleep 1000\n"})
    with subprocess.Popen(
        lamina.argv("build", "--progress=plain", "."),
        env=lamina.env,
        stderr=subprocess.PIPE,
        text=True,
    ) as build:
        assert build.stderr is not None
        while "running\n" not in build.stderr.readline():
            assert build.poll() is None
        build.kill()
    wait_until_alone(lamina)
    lamina("system", "prune", "-af")
    assert list((lamina.store_seen / "snapshots").iterdir()) == []


def test_a_terminal_is_left_and_joined_again(lamina: OrdinaryLamina) -> None:
    with Terminal() as terminal:
        before = terminal.settings
        terminal.run(lamina, "run", "-it", "--name", "tt", "busybox", "sh")
        terminal.expect(b"# ")
        terminal.type(b"word=kept\n\x10\x11")
        assert terminal.status() == 0
        terminal.run(lamina, "exec", "-it", "tt", "sh")
        terminal.expect(b"# ")
        terminal.type(b"echo on-$(tty)\n\x10\x11")
        terminal.expect(b"read escape sequence")
        assert terminal.status() == 1
        terminal.run(lamina, "attach", "tt")
        terminal.await_raw()
        terminal.type(b"echo got-$word\n")
        terminal.expect(b"got-kept")
        assert terminal.process is not None
        terminal.process.kill()
        terminal.process.wait()
        assert lamina("ps", "--format", "{{.State}}").stdout == "running\n"
        lamina("rm", "-f", "tt")
        wait_until(lambda: terminal.settings == before)
    wait_until_alone(lamina)
