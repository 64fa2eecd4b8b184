# SPDX-License-Identifier: Apache-2.0
"""Health checks, run by the container's monitor on the real kernel."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from lamina.container import state
from lamina.testing.busybox import Lamina, make_image
from lamina.testing.waiting import wait_until

FAST = ("--health-interval", "20ms")
QUIET = ("--network=none", "bb", "sleep", "600")


def health(lamina: Lamina, name: str = "one") -> dict[str, Any]:
    found: dict[str, Any] = lamina.inspect(name)["State"].get("Health", {})
    return found


def until_status(lamina: Lamina, status: str, name: str = "one") -> dict[str, Any]:
    wait_until(lambda: health(lamina, name).get("Status") == status, seconds=30)
    return health(lamina, name)


def monitor_of(lamina: Lamina, name: str = "one") -> int:
    directory = f"{lamina.root}/containers/{lamina.inspect(name)['Id']}"
    pid = state.read_state(directory).monitor_pid
    assert pid > 1
    return pid


def inside(lamina: Lamina, text: str, name: str = "one") -> list[int]:
    """The pids of processes in the container whose command line has the text."""
    space = os.readlink(f"/proc/{lamina.inspect(name)['State']['Pid']}/ns/pid")
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if text in command and os.readlink(f"/proc/{pid}/ns/pid") == space:
                found.append(int(pid))
        except OSError:
            continue
    return found


def test_health_follows_what_the_probe_says(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "one", *FAST, "--health-cmd", "echo seen; cat /ok",
           "--health-retries", "2", *QUIET)  # fmt: skip
    found = until_status(lamina, "unhealthy")
    assert found["FailingStreak"] >= 2
    assert found["Log"][-1]["ExitCode"] == 1
    assert found["Log"][-1]["Output"].startswith("seen\ncat: can't open '/ok'")
    assert found["Log"][-1]["Start"] < found["Log"][-1]["End"]
    assert "(unhealthy)" in lamina.out("ps", "--format", "{{.Status}}")
    lamina("exec", "one", "touch", "/ok")
    until_status(lamina, "healthy")
    assert lamina.out("ps", "--format", "{{.Status}}").endswith("(healthy)")
    assert lamina.out("ps", "-q", "--filter", "health=healthy")
    assert lamina.out("ps", "-q", "--filter", "health=unhealthy") == ""
    wait_until(lambda: len(health(lamina)["Log"]) == 5)
    told = lamina.out("events", "--since", "0", "--until", "0s", "--filter", "event=health_status",
                      "--format", "{{.Action}}").splitlines()  # fmt: skip
    assert told[-2:] == ["health_status: unhealthy", "health_status: healthy"]
    lamina("stop", "-t", "0", "one")
    assert health(lamina)["Status"] == "unhealthy"  # Docker's word for what does not run


def test_before_the_first_probe_it_is_starting(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "one", "--health-cmd", "true", *QUIET)
    assert health(lamina) == {"Status": "starting", "FailingStreak": 0, "Log": []}
    assert lamina.out("ps", "--format", "{{.Status}}").endswith(" (health: starting)")
    assert lamina.out("ps", "-q", "--filter", "health=starting")
    lamina("run", "-d", "--name", "two", *QUIET)
    assert lamina.out("ps", "--filter", "health=none", "--format", "{{.Names}}") == "two"


@pytest.mark.parametrize("test", [["CMD", "cat", "/data/seed"], ["CMD-SHELL", "cat /data/seed"]])
def test_the_check_of_the_image_is_run_as_its_user(lamina: Lamina, test: list[str]) -> None:
    check = {"Test": test, "Interval": 20_000_000}
    make_image(lamina.root, "docker.io/library/checked:latest", Healthcheck=check, User="guest")
    lamina("run", "-d", "--name", "one", "--network=none", "checked", "sleep", "600")
    assert until_status(lamina, "healthy")["Log"][-1]["Output"] == "from the image\n"
    assert lamina.inspect("one")["Config"]["Healthcheck"] == check


def test_flags_change_a_part_of_the_images_check(lamina: Lamina) -> None:
    check = {"Test": ["CMD", "false"], "Interval": 20_000_000, "Retries": 1}
    make_image(lamina.root, "docker.io/library/checked:latest", Healthcheck=check)
    lamina("create", "--name", "one", "--health-timeout", "5s", "checked")
    assert lamina.inspect("one")["Config"]["Healthcheck"] == check | {"Timeout": 5_000_000_000}
    lamina(
        "run", "-d", "--name", "two", "--no-healthcheck", "--network=none", "checked", "sleep", "9"
    )
    assert lamina.inspect("two")["Config"]["Healthcheck"] == {"Test": ["NONE"]}
    assert health(lamina, "two") == {}


def test_a_probe_that_hangs_is_killed_with_all_it_started(lamina: Lamina) -> None:
    hanging = "sleep 7001 & (sleep 7002 & sleep 7003) & setsid sleep 7004 & echo stuck; sleep 7005"
    lamina("run", "-d", "--name", "one", *FAST, "--health-cmd", hanging, "--health-retries", "1",
           "--health-timeout", "1s", *QUIET)  # fmt: skip
    wait_until(lambda: len(inside(lamina, "sleep 700")) >= 5)
    before = inside(lamina, "sleep 700")
    found = until_status(lamina, "unhealthy")
    assert found["Log"][0]["ExitCode"] == -1
    assert found["Log"][0]["Output"] == "Health check exceeded timeout (1s): stuck\n"
    assert not {pid for pid in before if os.path.exists(f"/proc/{pid}")} & set(
        inside(lamina, "sleep 700")
    )
    assert inside(lamina, "sleep 600")  # the container's own goes on
    lamina("rm", "-f", "one")


def test_output_is_cut_without_holding_up_the_probe(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "one", *FAST, "--health-cmd",
           "dd if=/dev/zero bs=1024 count=2000 2>/dev/null | tr '\\0' x", *QUIET)  # fmt: skip
    output = until_status(lamina, "healthy")["Log"][-1]["Output"]
    assert output == "x" * 4096 + "..."


def test_a_command_that_is_not_there_is_said(lamina: Lamina) -> None:
    check = {"Test": ["CMD", "nosuch"], "Interval": 20_000_000, "Retries": 1}
    make_image(lamina.root, "docker.io/library/checked:latest", Healthcheck=check)
    lamina("run", "-d", "--name", "one", "--network=none", "checked", "sleep", "600")
    entry = until_status(lamina, "unhealthy")["Log"][-1]
    assert (entry["ExitCode"], "nosuch" in entry["Output"]) == (-1, True)


@pytest.mark.host_root("an ordinary user's container has no control group with a freezer")
def test_a_paused_container_is_not_probed(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "one", *FAST, "--health-cmd", "true", *QUIET)
    until_status(lamina, "healthy")
    lamina("pause", "one")
    assert health(lamina)["Status"] == "unhealthy"
    assert lamina.out("ps", "--format", "{{.Status}}").endswith(" (Paused)")

    def last() -> str:
        return str(health(lamina)["Log"][-1]["Start"])

    lamina("unpause", "one")
    seen = last()
    wait_until(lambda: last() > seen)
    assert health(lamina)["Status"] == "healthy"


@pytest.mark.host_root("an ordinary user's container has no control group with a freezer")
def test_a_probe_that_a_pause_stops_is_not_held_against_the_container(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "one", *FAST, "--health-cmd", "sleep 0.3", "--health-timeout",
           "1s", "--health-retries", "1", *QUIET)  # fmt: skip
    wait_until(lambda: inside(lamina, "sleep 0.3") != [])
    lamina("pause", "one")
    probing = set(inside(lamina, "sleep 0.3"))
    wait_until(lambda: not runtimes(monitor_of(lamina)), seconds=20)
    lamina("unpause", "one")
    found = until_status(lamina, "healthy")
    assert [entry for entry in found["Log"] if entry["ExitCode"]] == []
    wait_until(lambda: not probing & set(inside(lamina, "sleep 0.3")))


def runtimes(pid: int) -> list[str]:
    """The processes of the runtime among the children of `pid`."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in children if "crun" in Path(f"/proc/{child}/comm").read_text()]


def test_health_begins_anew_after_a_restart(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "one", "--restart", "always", "--health-interval", "1h",
           "--health-start-period", "1h", "--health-start-interval", "20ms", "--health-cmd",
           "test ! -e /again", *QUIET)  # fmt: skip
    until_status(lamina, "healthy")
    lamina("exec", "one", "touch", "/again")
    os.kill(lamina.inspect("one")["State"]["Pid"], signal.SIGKILL)
    wait_until(lambda: lamina.inspect("one")["RestartCount"] == 1)
    wait_until(lambda: health(lamina)["Status"] == "starting")
    wait_until(lambda: health(lamina)["Log"][-1]["ExitCode"] == 1)
    assert health(lamina)["FailingStreak"] == 0


def test_a_killed_monitor_leaves_a_container_that_can_be_removed(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "one", *FAST, "--health-cmd", "sleep 7001", *QUIET)
    wait_until(lambda: inside(lamina, "sleep 7001") != [])
    os.kill(monitor_of(lamina), signal.SIGKILL)
    wait_until(lambda: "(orphaned)" in lamina.out("ps", "--format", "{{.Status}}"))
    lamina("rm", "-f", "one")


def test_a_container_ends_in_the_middle_of_a_probe(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "one", *FAST, "--health-cmd", "sleep 7001", *QUIET)
    wait_until(lambda: inside(lamina, "sleep 7001") != [])
    lamina("stop", "-t", "0", "one", timeout=20)
    assert lamina.inspect("one")["State"]["ExitCode"] == 137
    assert health(lamina)["Log"] == []


def test_output_of_the_container_goes_on_beside_probes(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "one", "--network=none", "--health-cmd", "true",
           "--health-interval", "1ms", "bb", "sh", "-c", "seq 20000; echo done; sleep 600")  # fmt: skip
    wait_until(lambda: lamina.out("logs", "--tail", "1", "one") == "done", seconds=30)
    assert len(lamina.out("logs", "one").splitlines()) == 20001
    until_status(lamina, "healthy")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--health-interval", "x"), 'invalid argument "x" for "--health-interval" flag'),
        (("--health-timeout", "-1s"), "--health-timeout cannot be negative"),
        (("--health-start-period", "1us"), "cannot be less than 1ms"),
        (("--health-retries", "-1"), "--health-retries cannot be negative"),
        (("--health-retries", "many"), 'invalid argument "many" for "--health-retries" flag'),
        (("--no-healthcheck", "--health-cmd", "x"), "--no-healthcheck conflicts with --health-*"),
    ],
)
def test_bad_flags_are_refused(lamina: Lamina, flags: tuple[str, ...], message: str) -> None:
    assert message in lamina("run", *flags, "bb", "true", status=125).stderr
