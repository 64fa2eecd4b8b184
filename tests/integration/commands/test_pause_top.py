# SPDX-License-Identifier: Apache-2.0
"""`pause`, `unpause` and `top`."""

from __future__ import annotations

import pytest

from lamina.testing.busybox import Lamina


@pytest.fixture
def running(lamina: Lamina) -> Lamina:
    lamina("run", "-d", "--name", "it", "bb", "sleep", "600")
    return lamina


@pytest.mark.host_root("without a control group nothing is paused")
def test_paused_container_is_shown_refuses_exec_and_goes_on(running: Lamina) -> None:
    assert running.out("pause", "it") == "it"
    shown = running.out("ps", "-f", "status=paused", "--format", "{{.State}} {{.Status}}")
    assert shown.startswith("paused Up")
    assert shown.endswith("(Paused)")
    assert running.inspect("it")["State"]["Paused"] is True
    assert running.out("ps", "-q", "-f", "status=running") == ""
    assert "is paused, unpause" in running("exec", "it", "true", status=1).stderr
    assert "already paused" in running("pause", "it", status=1).stderr
    assert running.out("commit", "it").startswith("sha256:")
    assert running.inspect("it")["State"]["Status"] == "paused"
    running("container", "unpause", "it")
    assert running.inspect("it")["State"]["Status"] == "running"
    running("exec", "it", "true")
    assert "is not paused" in running("unpause", "it", status=1).stderr


@pytest.mark.host_root("without a control group nothing is paused")
@pytest.mark.parametrize(
    "words", [("kill", "it"), ("stop", "-t", "1", "it"), ("rm", "-f", "it")], ids=" ".join
)
def test_paused_container_can_be_ended(running: Lamina, words: tuple[str, ...]) -> None:
    running("container", "pause", "it")
    running(*words)
    assert running.out("ps", "-q") == ""


def test_only_what_runs_is_paused_or_listed(lamina: Lamina) -> None:
    lamina("create", "--name", "it", "bb", "true")
    for command in ("pause", "top"):
        assert "is not running" in lamina(command, "it", status=1).stderr
        assert "No such container" in lamina(command, "nosuch", status=1).stderr


def test_top_lists_the_processes_of_the_container_alone(running: Lamina) -> None:
    running("exec", "-d", "it", "sleep", "601")
    heading, *lines = running.out("top", "it").split("\n")
    assert "PID" in heading.split()
    assert sorted(line.split()[-1] for line in lines) == ["600", "601"]
    heading, *lines = running.out("container", "top", "it", "-o", "pid,args").split("\n")
    assert heading.split() == ["PID", "COMMAND"]
    assert "Couldn't find PID" in running("top", "it", "-eo", "args", status=1).stderr
    assert "ps --nosuch" in running("top", "it", "--nosuch", status=1).stderr
