# SPDX-License-Identifier: Apache-2.0
"""Flags of `run` that mean something else, or nothing, without root."""

from __future__ import annotations

import pytest

from lamina.testing.ordinary import OrdinaryLamina

pytestmark = [pytest.mark.root, pytest.mark.tool("crun", "busybox", "newuidmap")]


@pytest.mark.tool("catatonit")
def test_what_works(lamina: OrdinaryLamina) -> None:
    script = (
        "tr '\\0' ' ' < /proc/1/cmdline; echo; cat /proc/self/oom_score_adj; stat -c %t:%T /dev/foo"
    )
    flags = (
        *("--init", "--oom-score-adj=900", "--device=/dev/fuse:/dev/foo", "--ipc=host"),
        *(
            "--uts=host",
            "--userns=host",
            "--cgroupns=host",
            "--security-opt=systempaths=unconfined",
        ),
    )
    lines = lamina("run", "--rm", *flags, "busybox", "sh", "-c", script).stdout.split("\n")
    assert lines[0].startswith("/sbin/docker-init -- sh")
    assert lines[1:3] == ["900", "a:e5"]


def test_processes_are_counted_without_a_control_group(lamina: OrdinaryLamina) -> None:
    lamina("run", "-d", "--name", "it", "busybox", "sh", "-c", "while :; do :; done")
    shown = lamina("stats", "--no-stream", "--format={{.PIDs}} {{.CPUPerc}}").stdout.split()
    assert shown[0] == "1"
    assert float(shown[1].removesuffix("%")) > 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--cpu-shares=10"], "--cpu-shares cannot be enforced"),
        (["--memory-reservation=64m"], "--memory-reservation cannot be enforced"),
        (["--device-read-bps=/dev/vda:1m"], "--device-read-bps cannot be enforced"),
        (["--device-cgroup-rule=c 1:2 rwm"], "--device-cgroup-rule cannot be enforced"),
        (["--device=/dev/fuse:/dev/fuse:r"], "cannot be enforced"),
        (["--pid=host"], "--pid host needs a control group"),
        (["--cgroup-parent=/mine"], "--cgroup-parent mine needs a control group"),
        (["--oom-score-adj=-5"], "--oom-score-adj -5 is not allowed without root"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_does_not_is_refused_by_name(
    lamina: OrdinaryLamina, flags: list[str], message: str
) -> None:
    done = lamina("run", "--rm", *flags, "busybox", "true", check=False)
    assert done.returncode == 125
    assert message in done.stderr
    assert lamina("ps", "-aq").stdout == ""


def test_commit_of_what_cannot_be_paused_says_how_it_can_be_done(lamina: OrdinaryLamina) -> None:
    lamina("run", "-d", "--name", "it", "busybox", "sleep", "600")
    done = lamina("commit", "it", "made", check=False)
    assert done.returncode == 1
    assert "hint: '--pause=false' commits it" in done.stderr
    lamina("commit", "--pause=false", "it", "made")
    assert lamina("run", "--rm", "made", "echo", "ran").stdout == "ran\n"


def test_namespace_of_another_container_is_refused(lamina: OrdinaryLamina) -> None:
    lamina("run", "-d", "--name", "donor", "--ipc=shareable", "busybox", "sleep", "600")
    done = lamina("run", "--rm", "--ipc=container:donor", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "not supported without root" in done.stderr
