# SPDX-License-Identifier: Apache-2.0
"""`--restart`: containers that their monitors start again, and what stops that."""

from __future__ import annotations

import os
import re
import signal
from functools import partial
from typing import Any

import pytest

from lamina.app.containers import find
from lamina.app.updating import update_restart_policy
from lamina.container import state
from lamina.errors import LaminaError
from lamina.start.record import replace
from lamina.store import open_store
from lamina.testing.busybox import Lamina
from lamina.testing.waiting import wait_until

# fails in the first run, stays in the second
ONCE = "if [ -e /seen ]; then echo again; exec sleep 600; fi; echo first; touch /seen; exit 7"


def shown(lamina: Lamina, name: str) -> dict[str, Any]:
    found: dict[str, Any] = lamina.inspect(name)
    return found


def status(lamina: Lamina, name: str) -> str:
    text: str = shown(lamina, name)["State"]["Status"]
    return text


def is_back(lamina: Lamina, name: str, *, count: int) -> bool:
    """Whether it runs after that many restarts."""
    found = shown(lamina, name)
    return bool(found["State"]["Status"] == "running" and found["RestartCount"] == count)


def kill(pid: int) -> None:
    assert pid > 1
    os.kill(pid, signal.SIGKILL)


def in_backoff(lamina: Lamina, name: str = "it") -> None:
    """Wait until the delay before the next run is a long one (over three seconds)."""
    wait_until(
        lambda: status(lamina, name) == "restarting" and shown(lamina, name)["RestartCount"] >= 6,
        seconds=30,
    )


@pytest.mark.parametrize("network", ["none", "bridge"])
def test_a_failure_is_started_again_with_the_same_files_and_log(
    lamina: Lamina, network: str
) -> None:
    lamina("run", "-d", "--name", "it", "--network", network, "--restart", "on-failure:3",
           "bb", "sh", "-c", ONCE)  # fmt: skip
    wait_until(lambda: is_back(lamina, "it", count=1))
    wait_until(lambda: lamina.out("logs", "it") == "first\nagain")
    assert shown(lamina, "it")["HostConfig"]["RestartPolicy"] == {
        "Name": "on-failure",
        "MaximumRetryCount": 3,
    }
    lamina("stop", "-t", "0", "it")
    assert (status(lamina, "it"), shown(lamina, "it")["State"]["Running"]) == ("exited", False)
    assert lamina.out("events", "--since", "0", "--until", "0s", "--format", "{{.Action}}",
                      "--filter", "container=it").split() == [
        *("create", "start", "die", "start", "kill", "kill", "die", "stop"),
    ]  # fmt: skip


def test_published_ports_are_there_again(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "it", "-p", "0:8000", "--restart", "always", "bb", "sleep", "600")
    before = shown(lamina, "it")["State"]["Pid"]
    kill(before)
    wait_until(lambda: is_back(lamina, "it", count=1))
    assert shown(lamina, "it")["State"]["Pid"] != before
    assert re.fullmatch(r"0\.0\.0\.0:\d+", lamina.out("port", "it", "8000").splitlines()[0])


def test_retries_end_with_the_last_status(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "it", "--network=none", "--restart", "on-failure:2", "bb", "sh",
           "-c", "exit 9")  # fmt: skip
    wait_until(lambda: status(lamina, "it") == "exited")
    assert shown(lamina, "it")["RestartCount"] == 2
    assert shown(lamina, "it")["State"]["ExitCode"] == 9
    assert lamina.out("ps", "-a", "--format", "{{.Status}}").startswith("Exited (9) ")


def test_success_ends_on_failure(lamina: Lamina) -> None:
    lamina("run", "--name", "it", "--network=none", "--restart", "on-failure", "bb", "true")
    wait_until(lambda: status(lamina, "it") == "exited")
    assert shown(lamina, "it")["RestartCount"] == 0


def test_run_ends_with_the_first_status_while_the_container_goes_on(lamina: Lamina) -> None:
    done = lamina("run", "--name", "it", "--network=none", "--restart", "always", "bb", "sh", "-c",
                  ONCE, status=7)  # fmt: skip
    assert done.stdout == "first\n"
    wait_until(lambda: is_back(lamina, "it", count=1))


def test_the_wait_before_the_next_run_is_shown_and_ended_at_once(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "it", "--network=none", "--restart", "always", "bb", "false")
    in_backoff(lamina)
    found = shown(lamina, "it")["State"]
    assert (found["Restarting"], found["Running"], found["Pid"]) == (True, True, 0)
    text = lamina.out("ps", "--format", "{{.State}} {{.Status}}")
    assert re.fullmatch(r"restarting Restarting \(1\) (Less than a second|\d+ seconds?) ago", text)
    assert lamina.out("ps", "-q", "--filter", "status=restarting")
    for refused in (["exec", "it", "true"], ["pause", "it"]):
        assert "is restarting, wait until" in lamina(*refused, status=1).stderr
    assert "container is restarting" in lamina("rm", "it", status=1).stderr
    lamina("start", "it")  # is no error, and changes nothing
    lamina("stop", "it", timeout=20)
    assert status(lamina, "it") == "exited"
    lamina("start", "it")
    wait_until(lambda: shown(lamina, "it")["RestartCount"] == 1)  # begins anew
    in_backoff(lamina)
    lamina("kill", "it", timeout=20)
    assert status(lamina, "it") == "exited"
    lamina("start", "it")
    in_backoff(lamina)
    lamina("rm", "-f", "it", timeout=20)
    assert lamina.directories() == []


@pytest.mark.parametrize("word", ["KILL", "TERM", "INT"])
def test_who_kills_a_container_means_it(lamina: Lamina, word: str) -> None:
    trap = "trap 'exit 3' TERM INT; echo ready; while :; do sleep 0.05; done"
    lamina("run", "-d", "--name", "it", "--network=none", "--restart", "always", "bb", "sh", "-c",
           trap)  # fmt: skip
    wait_until(lambda: "ready" in lamina.out("logs", "it"))
    lamina("kill", "-s", word, "it")
    wait_until(lambda: status(lamina, "it") == "exited")
    assert shown(lamina, "it")["RestartCount"] == 0


def test_other_signals_end_no_policy(lamina: Lamina) -> None:
    trap = "trap 'exit 3' USR1; echo ready; while :; do sleep 0.05; done"
    lamina("run", "-d", "--name", "it", "--network=none", "--restart", "always", "bb", "sh", "-c",
           trap)  # fmt: skip
    wait_until(lambda: "ready" in lamina.out("logs", "it"))
    lamina("kill", "-s", "USR1", "it")
    wait_until(lambda: is_back(lamina, "it", count=1))


def test_wait_returns_at_the_next_end(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "it", "--network=none", "--restart", "always", "bb", "sh", "-c",
           "exit 5")  # fmt: skip
    assert lamina.out("wait", "it") == "5"


def test_restart_by_hand_counts_from_zero(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "it", "--network=none", "--restart", "always", "bb", "sleep",
           "600")  # fmt: skip
    kill(shown(lamina, "it")["State"]["Pid"])
    wait_until(lambda: is_back(lamina, "it", count=1))
    lamina("restart", "-t", "0", "it")
    assert is_back(lamina, "it", count=0)
    kill(shown(lamina, "it")["State"]["Pid"])
    wait_until(lambda: is_back(lamina, "it", count=1))


def test_a_monitor_killed_before_the_next_run_leaves_what_start_takes_up(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "it", "--restart", "always", "bb", "false")
    in_backoff(lamina)
    directory = f"{lamina.root}/containers/{shown(lamina, 'it')['Id']}"
    kill(state.read_state(directory).monitor_pid)
    wait_until(lambda: status(lamina, "it") == "exited")
    assert "monitor was killed" in shown(lamina, "it")["State"]["Error"]
    assert lamina.out("ps", "-q") == ""
    lamina("start", "it")
    wait_until(lambda: status(lamina, "it") == "restarting")


def test_a_monitor_killed_while_it_runs_starts_nothing_again(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "it", "--restart", "always", "bb", "sleep", "600")
    directory = f"{lamina.root}/containers/{shown(lamina, 'it')['Id']}"
    found = state.read_state(directory)
    kill(found.monitor_pid)
    wait_until(lambda: "(orphaned)" in lamina.out("ps", "--format", "{{.Status}}"))
    kill(found.pid)
    wait_until(lambda: status(lamina, "it") == "exited")
    lamina("start", "it")
    kill(shown(lamina, "it")["State"]["Pid"])
    wait_until(lambda: is_back(lamina, "it", count=1))


def test_what_cannot_be_started_again_ends_with_the_error(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "it", "--network=none", "--restart", "always", "bb", "sh", "-c",
           "rm /bin/sh /bin/busybox; exit 1")  # fmt: skip
    wait_until(lambda: status(lamina, "it") == "exited")
    found = shown(lamina, "it")["State"]
    assert (found["ExitCode"], found["Running"]) == (127, False)
    assert "sh" in found["Error"]


def test_restarts_leave_no_mounts_and_descriptors_in_the_monitor(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "it", "--restart", "always", "bb", "sleep", "600")

    def mounts() -> int:
        directory = f"{lamina.root}/containers/{shown(lamina, 'it')['Id']}"
        pid = state.read_state(directory).monitor_pid
        with open(f"/proc/{pid}/mountinfo") as table:
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
            return len(table.readlines()) * 1000 + descriptors

    before = 0
    for count in range(1, 6):
        kill(shown(lamina, "it")["State"]["Pid"])
        wait_until(partial(is_back, lamina, "it", count=count))
        before = before or mounts()  # by then who started it has gone
    wait_until(lambda: mounts() <= before)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--restart", "sometimes"), "unknown policy 'sometimes'"),
        (("--restart", "always:3"), "maximum retry count can only be used with 'on-failure'"),
        (("--rm", "--restart", "always"), "cannot specify both --restart and --rm"),
    ],
)
def test_bad_policies_are_refused(lamina: Lamina, flags: tuple[str, ...], message: str) -> None:
    assert message in lamina("run", *flags, "bb", "true", status=125).stderr


def test_rm_with_no_policy_is_as_ever(lamina: Lamina) -> None:
    lamina("run", "--rm", "--restart", "no", "--network=none", "bb", "true")
    assert lamina.directories() == []


@pytest.mark.host_root("opens the store in its own process")
def test_a_policy_that_is_changed_holds_from_the_next_end_on(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "it", "--network=none", "bb", "sleep", "600")
    store = open_store(lamina.root)
    try:
        update_restart_policy(store, find(store, "it"), "on-failure:1")
        kill(shown(lamina, "it")["State"]["Pid"])
        wait_until(lambda: is_back(lamina, "it", count=1))
        assert shown(lamina, "it")["HostConfig"]["RestartPolicy"]["MaximumRetryCount"] == 1
        update_restart_policy(store, find(store, "it"), "no")
        kill(shown(lamina, "it")["State"]["Pid"])
        wait_until(lambda: status(lamina, "it") == "exited")
        lamina("create", "--rm", "--name", "brief", "bb")
        with pytest.raises(LaminaError, match="AutoRemove is enabled"):
            update_restart_policy(store, find(store, "brief"), "always")
    finally:
        store.close()


def test_what_a_monitor_had_started_when_it_was_killed_is_ended_by_the_next_start(
    lamina: Lamina,
) -> None:
    lamina("run", "-d", "--name", "it", "--restart", "always", "bb", "sleep", "600")
    directory = f"{lamina.root}/containers/{shown(lamina, 'it')['Id']}"
    found = state.read_state(directory)
    kill(found.monitor_pid)
    wait_until(lambda: not state.is_locked(directory))
    # as if it had not come to writing that the next run has begun
    state.write_state(directory, replace(found, status=state.RESTARTING, pid=0, pid_started=0))
    assert status(lamina, "it") == "exited"
    lamina("start", "it")
    wait_until(lambda: state.start_ticks(found.pid) != found.pid_started)
    assert is_back(lamina, "it", count=0)
