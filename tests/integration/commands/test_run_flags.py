# SPDX-License-Identifier: Apache-2.0
"""Limits, devices and namespaces of `run`, seen from inside the container, and beside podman's."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from lamina.container.groups import directories_of
from lamina.testing.busybox import BUSYBOX, Lamina, processes_of
from lamina.testing.skips import host_lacks
from lamina.testing.waiting import wait_until

V1 = "/sys/fs/cgroup"


@pytest.fixture
def v1() -> None:
    if not os.path.exists(f"{V1}/memory/memory.memsw.limit_in_bytes"):
        host_lacks("control groups v1 that count swap")


@pytest.mark.host_root("without a control group limits are refused")
@pytest.mark.usefixtures("v1")
@pytest.mark.parametrize(
    ("flags", "file", "text"),
    [
        (["-m", "64m"], "memory/memory.limit_in_bytes", "67108864"),
        (["-m", "64m"], "memory/memory.memsw.limit_in_bytes", "134217728"),
        (["-m", "64m", "--memory-swap=96m"], "memory/memory.memsw.limit_in_bytes", "100663296"),
        (
            ["-m", "64m", "--memory-reservation=32m"],
            "memory/memory.soft_limit_in_bytes",
            "33554432",
        ),
        (["--memory-swappiness=10"], "memory/memory.swappiness", "10"),
        (["-m", "64m", "--oom-kill-disable"], "memory/memory.oom_control", "oom_kill_disable 1"),
        (["-c", "512"], "cpu/cpu.shares", "512"),
        (["--cpu-quota=50000"], "cpu/cpu.cfs_quota_us", "50000"),
        (["--cpu-period=50000", "--cpu-quota=20000"], "cpu/cpu.cfs_period_us", "50000"),
        (["--cpuset-cpus=0"], "cpuset/cpuset.cpus", "0"),
        (["--cpuset-mems=0"], "cpuset/cpuset.mems", "0"),
        (["--device-cgroup-rule=c 7:* rw"], "devices/devices.list", "c 7:* rw"),
        (["--device=/dev/fuse:/dev/foo:r"], "devices/devices.list", "c 10:229 r"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_limit_is_in_the_containers_control_group(
    lamina: Lamina, flags: list[str], file: str, text: str
) -> None:
    assert text in lamina.out("run", "--rm", *flags, "bb", "cat", f"{V1}/{file}").split("\n")


@pytest.mark.parametrize(
    ("flags", "command", "shown"),
    [
        (["--oom-score-adj=300"], "cat /proc/self/oom_score_adj", "300"),
        (["--init"], "tr '\\0' ' ' < /proc/1/cmdline", "/sbin/docker-init -- sh"),
        (["--uts=host"], "hostname", os.uname().nodename),
        (["--uts=host"], "echo $HOSTNAME", os.uname().nodename),
        (["--ipc=none"], "ls /dev/shm | wc -l; grep -c ' /dev/shm ' /proc/mounts", "0\n0"),
        (["--device=/dev/fuse:/dev/foo"], "stat -c '%t %T' /dev/foo", "a e5"),
        (["--security-opt=systempaths=unconfined"], "grep -c ' /proc/sys ' /proc/mounts", "0"),
        (["--security-opt=no-new-privileges"], "grep -c 'NoNewPrivs:\t1' /proc/self/status", "1"),
        (["--security-opt=no-new-privileges:false"], "grep NoNew /proc/self/status", "0"),
        (["--ulimit=nofile=100:200"], "ulimit -n; ulimit -Hn", "100\n200"),
        (["--group-add=extra", "--group-add=77"], "id -G", "0 77 2000"),
        (["--shm-size=1m"], "df -k /dev/shm | tail -1 | awk '{print $2}'", "1024"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flag_has_its_effect_inside(
    lamina: Lamina, flags: list[str], command: str, shown: str
) -> None:
    done = lamina.popen("run", "--rm", *flags, "bb", "sh", "-c", command)
    out, _ = done.communicate(timeout=60)
    text = out.decode().rstrip("\n")
    assert text.startswith(shown) if "cmdline" in command else text.endswith(shown), text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--memory-swap=1g"], "You should always set the Memory limit"),
        (["-m", "64m", "--memory-swap=32m"], "larger than memory limit"),
        (["-m", "64m", "--memory-reservation=1g"], "less than memory reservation"),
        (["--memory-reservation=1m"], "Minimum memory reservation allowed is 6MB"),
        (["--memory-swappiness=101"], "valid memory swappiness range is 0-100"),
        (["--cpu-period=1"], "CPU cfs period"),
        (["--cpu-quota=1"], "CPU cfs quota"),
        (["--cpus=1", "--cpu-quota=5000"], "Nano CPUs and CPU Quota"),
        (["--blkio-weight=5"], "Range of blkio weight"),
        (["--oom-score-adj=2000"], "range for oom score adj"),
        (["--device=relative"], "not an absolute path"),
        (["--device=/dev/null:/x:q"], "bad mode"),
        (["--device=/dev/no-such"], "gathering device information"),
        (["--device-cgroup-rule=c 1:2"], "invalid device cgroup format"),
        pytest.param(
            ["--device-read-bps=/dev/null:1m"],
            "not a block device",
            marks=pytest.mark.host_root("without a control group the flag is refused"),
        ),
        (["--device=no.such/device=1"], "unresolvable CDI devices no.such/device=1"),
        (["--pid=else"], "--pid: invalid PID mode"),
        (["--pid=container:no-such"], "No such container: no-such"),
        (["--ipc=else"], "invalid IPC mode: else"),
        (["--uts=else"], "--uts: invalid UTS mode"),
        (["--uts=host", "--hostname=x"], "conflicting options: hostname and the UTS mode"),
        (["--userns=else"], "--userns: invalid USER mode"),
        (["--cgroupns=else"], "--cgroupns: invalid CGROUP mode"),
        (["--kernel-memory=1g"], "--kernel-memory is not supported"),
        (["--isolation=process"], "--isolation is not supported"),
        (["--security-opt=apparmor=x"], "without AppArmor"),
        (["--security-opt=label=type:x"], "no SELinux labels"),
        (["--security-opt=seccomp=/no/such"], "opening seccomp profile"),
        (["--log-driver=journald"], "--log-driver journald is not supported"),
        (["--log-opt=mode=non-blocking"], "mode=non-blocking is not supported"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_said_and_leaves_no_container(
    lamina: Lamina, flags: list[str], message: str
) -> None:
    assert message in lamina("run", "--rm", *flags, "bb", "true", status=125).stderr
    assert lamina.out("ps", "-aq") == ""


PODMAN = """
mount --make-rprivate / && {{ umount /sys/fs/cgroup/unified || true; }} 2>/dev/null
exec podman --root {0} --runroot {1} --cgroup-manager cgroupfs run --rm --network=none \
  --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 --security-opt label=disable "$@"
"""


@pytest.mark.host_root("without a control group limits are refused")
@pytest.mark.usefixtures("v1")
@pytest.mark.tool("podman")
def test_podman_gives_the_same(lamina: Lamina, tmp_path: Path) -> None:
    """One container each with all flags at once: starting podman is dear."""
    flags = [
        *("--memory=64m", "--memory-swap=96m", "--memory-reservation=32m", "--cpu-shares=512"),
        *("--cpu-period=50000", "--cpu-quota=20000", "--cpuset-cpus=0", "--pids-limit=99"),
        *("--oom-score-adj=300", "--memory-swappiness=10", "--device=/dev/fuse:/dev/foo:rw"),
    ]
    files = (
        "memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes "
        "memory/memory.soft_limit_in_bytes memory/memory.swappiness cpu/cpu.shares "
        "cpu/cpu.cfs_period_us cpu/cpu.cfs_quota_us cpuset/cpuset.cpus pids/pids.max"
    )
    script = (
        f"cd {V1} && /bin/busybox cat {files} /proc/self/oom_score_adj"
        " && /bin/busybox stat -c %t:%T:%a /dev/foo"
    )
    root = tmp_path / "root"
    for name in ("bin", "proc", "sys", "dev", "etc"):
        (root / name).mkdir(parents=True)
    subprocess.run(["cp", BUSYBOX, root / "bin/busybox"], check=True)
    ours = lamina.out("run", "--rm", *flags, "bb", "sh", "-c", script)
    with subprocess.Popen(["mktemp", "-d"], stdout=subprocess.PIPE, text=True) as made:
        assert made.stdout is not None
        runroot = made.stdout.read().strip()  # podman takes no longer one than 50 characters
    words = ["unshare", "-m", "sh", "-c", PODMAN.format(tmp_path / "pods", runroot), "sh"]
    try:
        done = subprocess.run(
            [*words, *flags, "--rootfs", str(root), "/bin/busybox", "sh", "-c", script],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        subprocess.run(["rm", "-rf", runroot], check=True)
    assert done.returncode == 0, done.stderr
    assert ours == done.stdout.rstrip("\n")


@pytest.mark.host_root("without a control group no pids are shared")
def test_memory_and_processes_are_shared_with_a_container_that_runs(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "donor", "--ipc=shareable", "bb", "sleep", "600")
    lamina("exec", "donor", "sh", "-c", "echo shared > /dev/shm/file")
    both = ("--ipc=container:donor", "--pid=container:donor")
    seen = lamina.out("run", "--rm", *both, "bb", "sh", "-c", "cat /dev/shm/file; ps -o args")
    assert seen.split("\n")[:3] == ["shared", "COMMAND", "sleep 600"]
    lamina("stop", "-t", "0", "donor")
    refused = lamina("run", "--rm", *both, "bb", "true", status=125).stderr
    assert "of a non running container" in refused
    lamina("run", "-d", "--name", "private", "bb", "sleep", "600")
    refused = lamina("run", "--rm", "--ipc=container:private", "bb", "true", status=125).stderr
    assert "non-shareable IPC" in refused


def started_on_the_hosts_pids(lamina: Lamina) -> str:
    """The control group of a container of two sessions that sees the host's processes."""
    words = ("sh", "-c", f"setsid sleep 6001 & exec sleep 6002 # {lamina.root}")
    lamina("run", "-d", "--name", "it", "--pid=host", "bb", *words)
    group = lamina.inspect("it")["Id"]
    wait_until(lambda: len(members(group)) == 2)
    return str(group)


def members(group: str) -> set[str]:
    found = set()
    for top in directories_of(group):
        for pid in Path(top, "cgroup.procs").read_text().split():
            try:
                text = Path(f"/proc/{pid}/cgroup").read_text()
            except FileNotFoundError:
                continue
            if group in text:
                found.add(pid)
    return found


@pytest.mark.host_root("without a control group no pids are shared")
def test_all_that_a_container_on_the_hosts_pids_started_ends_with_it(lamina: Lamina) -> None:
    group = started_on_the_hosts_pids(lamina)
    lamina("kill", "it")
    assert members(group) == set()
    assert directories_of(group) == []


@pytest.mark.host_root("without a control group no pids are shared")
def test_it_ends_also_if_its_monitor_was_killed(lamina: Lamina) -> None:
    import json

    group = started_on_the_hosts_pids(lamina)
    state = json.loads(Path(lamina.root, "containers", group, "state.json").read_text())
    os.kill(state["monitor_pid"], signal.SIGKILL)
    wait_until(lambda: "orphaned" in lamina.out("ps", "--format", "{{.Status}}"))
    os.kill(state["pid"], signal.SIGKILL)
    wait_until(lambda: lamina.out("ps", "-q") == "")
    assert len(members(group)) == 1
    lamina("rm", "it")
    assert members(group) == set()
    assert directories_of(group) == []
    wait_until(lambda: processes_of(lamina.root) == [])


@pytest.mark.host_root("without a control group there is no parent")
def test_the_parent_of_its_control_group_is_the_users_and_stays(lamina: Lamina) -> None:
    name = f"lamina-parent-{os.getpid()}"
    try:
        lines = lamina.out(
            "run", "--rm", "--cgroupns=host", f"--cgroup-parent=/{name}", "bb", "cat",
            "/proc/self/cgroup",
        )  # fmt: skip
        assert f"/{name}/" in lines
        tops = directories_of(name)
        assert tops
        assert [entry for top in tops for entry in Path(top).iterdir() if entry.is_dir()] == []
    finally:
        for top in directories_of(name):
            os.rmdir(top)


def test_cdi_file_gives_a_device_and_a_variable(lamina: Lamina) -> None:
    directory = Path("/var/run/cdi")
    made = not directory.exists()
    directory.mkdir(exist_ok=True)
    file = directory / f"lamina-{os.getpid()}.yaml"
    file.write_text(
        "cdiVersion: 0.6.0\nkind: lamina.test/dev\ncontainerEdits: {env: [ALL=1]}\ndevices:\n"
        "- name: one\n  containerEdits:\n    env: [ONE=1]\n    deviceNodes:\n"
        "    - {path: /dev/one, hostPath: /dev/null, permissions: rw}\n"
    )
    try:
        shown = lamina.out(
            "run", "--rm", "--device=lamina.test/dev=one", "bb", "sh", "-c",
            "echo $ALL$ONE; stat -c %t:%T /dev/one; echo x > /dev/one",
        )  # fmt: skip
    finally:
        file.unlink()
        if made:
            directory.rmdir()
    assert shown == "11\n1:3"
