# SPDX-License-Identifier: Apache-2.0
"""`update` and `stats`."""

from __future__ import annotations

import json
import os
import signal

import pytest

from lamina.testing.busybox import Lamina
from lamina.testing.skips import host_lacks

pytestmark = pytest.mark.host_root("without a control group limits are refused")
V1 = "/sys/fs/cgroup"


@pytest.fixture
def running(lamina: Lamina) -> Lamina:
    if not os.path.exists(f"{V1}/memory/memory.memsw.limit_in_bytes"):
        host_lacks("control groups v1 that count swap")
    lamina("run", "-d", "--name", "it", "-m", "64m", "bb", "sh", "-c", "while :; do :; done")
    return lamina


def limits(lamina: Lamina) -> list[str]:
    files = "memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes cpu/cpu.shares"
    files += " cpu/cpu.cfs_quota_us pids/pids.max"
    return lamina.out("exec", "it", "sh", "-c", f"cd {V1} && cat {files}").split("\n")


def test_limits_change_at_once_and_are_kept(running: Lamina) -> None:
    flags = ("-m", "128m", "--cpu-shares=77", "--cpus=0.5", "--pids-limit=9")
    assert running.out("update", *flags, "it") == "it"
    after = [str(128 << 20), str(256 << 20), "77", "50000", "9"]
    assert limits(running) == after
    running("update", "-m", "32m", "it")  # below what swap was limited to with it
    after[:2] = [str(32 << 20), str(64 << 20)]
    assert limits(running) == after
    running("restart", "-t", "0", "it")
    assert limits(running) == after
    assert running.inspect("it")["HostConfig"]["Memory"] == 32 << 20


def test_limits_of_a_container_that_does_not_run_count_from_its_start(running: Lamina) -> None:
    running("kill", "it")
    running("container", "update", "--cpu-quota=5000", "--memory-reservation=16m", "it")
    running("start", "it")
    assert limits(running)[3] == "5000"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["it"], "You must provide one or more flags"),
        (["--cpus=1", "nosuch"], "No such container: nosuch"),
        (["--kernel-memory=1g", "it"], "--kernel-memory is not supported"),
        (["--memory-reservation=80m", "it"], "less than memory reservation"),
        (["--blkio-weight=100", "it"], "--blkio-weight cannot be enforced"),
        (["-m", "1m", "it"], "Minimum memory limit allowed is 6MB"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_changed_is_said(running: Lamina, words: list[str], message: str) -> None:
    before = limits(running)
    status = 125 if words[:2] in (["it"], ["-m", "1m"]) else 1  # flags that are wrong by themselves
    assert message in running("update", *words, status=status).stderr
    assert limits(running) == before


def test_other_way_of_limiting_the_cpus_is_a_conflict(running: Lamina) -> None:
    running("update", "--cpus=0.5", "it")
    message = "CPU Quota cannot be updated as NanoCPUs has already been set"
    assert message in running("update", "--cpu-quota=5000", "it", status=1).stderr


def test_stats_once(running: Lamina) -> None:
    running("create", "--name", "idle", "bb", "true")
    heading, line = running.out("stats", "--no-stream").split("\n")
    assert heading.split() == [
        *("CONTAINER", "ID", "NAME", "CPU", "%", "MEM", "USAGE", "/", "LIMIT", "MEM", "%"),
        *("NET", "I/O", "BLOCK", "I/O", "PIDS"),
    ]
    assert line.split()[1] == "it"
    found = json.loads(running.out("stats", "--no-stream", "--format=json", "it"))
    assert float(found["CPUPerc"].removesuffix("%")) > 1  # it never rests
    assert found["MemUsage"].endswith(" / 64MiB")
    assert found["PIDs"] == "1"
    everything = running.out("stats", "--no-stream", "-a", "--format={{.Name}} {{.PIDs}}")
    assert sorted(everything.split("\n")) == ["idle 0", "it 1"]
    assert "No such container" in running("stats", "--no-stream", "nosuch", status=1).stderr


def test_stats_go_on_until_they_are_interrupted(running: Lamina) -> None:
    with running.popen("stats", "--format={{.Name}}", "it") as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"it\n", b"it\n"]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130


def test_paused_container_can_be_looked_at_and_changed(running: Lamina) -> None:
    running("pause", "it")
    found = json.loads(running.out("stats", "--no-stream", "--format=json", "it"))
    assert found["CPUPerc"] == "0.00%"
    running("update", "--cpu-shares=77", "it")
    assert "is paused, unpause" in running("exec", "it", "true", status=1).stderr
    running("unpause", "it")
    assert limits(running)[2] == "77"
