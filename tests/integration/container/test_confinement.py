# SPDX-License-Identifier: Apache-2.0
"""What confines a container, seen from the inside, on crun and on runc."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.container.ports import Mount
from lamina.errors import Kind, LaminaError
from lamina.testing.skips import host_lacks
from lamina.testing.waiting import wait_until

pytestmark = pytest.mark.root
Run = Callable[..., tuple[int, str, str]]


def status_of(run: Run, **fields: object) -> dict[str, str]:
    _, out, _ = run("cat", "/proc/self/status", **fields)
    return {
        name: value.strip() for name, _, value in (line.partition(":") for line in out.splitlines())
    }


def test_capabilities_are_dockers_fourteen(run: Run) -> None:
    found = status_of(run)
    assert found["CapEff"] == found["CapPrm"] == found["CapBnd"] == "00000000a80425fb"
    assert found["CapInh"] == found["CapAmb"] == "0000000000000000"


def test_user_without_privilege_has_no_effective_capability(run: Run) -> None:
    found = status_of(run, user="1001")
    assert found["CapEff"] == found["CapPrm"] == "0000000000000000"
    assert found["CapBnd"] == "00000000a80425fb"


def test_added_and_dropped_capabilities_show(run: Run) -> None:
    found = status_of(run, cap_drop=("ALL",), cap_add=("net_admin", "CAP_CHOWN"))
    assert int(found["CapEff"], 16) == 1 << 12 | 1 << 0


def test_seccomp_filter_is_on_and_refuses(run: Run) -> None:
    assert status_of(run)["Seccomp"] == "2"
    # unshare(CLONE_NEWUSER) needs no capability: only the filter stops it.
    status, _, err = run("unshare", "-U", "true")
    assert status != 0
    assert "Operation not permitted" in err


def test_seccomp_can_be_unconfined(run: Run) -> None:
    assert status_of(run, seccomp="unconfined")["Seccomp"] == "0"


def test_own_seccomp_profile_is_used(run: Run) -> None:
    profile = (
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": ['
        '{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}'
    )
    status, _, err = run("mkdir", "/tmp/x", seccomp=profile)
    assert status == 1
    assert "not supported" in err


def test_no_new_privileges_is_off_unless_asked_for(run: Run) -> None:
    assert status_of(run)["NoNewPrivs"] == "0"
    assert status_of(run, no_new_privileges=True)["NoNewPrivs"] == "1"


def test_masked_paths_are_empty(run: Run) -> None:
    status, out, _ = run("sh", "-c", "wc -c < /proc/keys; ls -A /sys/firmware /proc/acpi")
    assert out.split()[0] == "0"
    assert "acpi:" in out.replace("/proc/", "")
    assert [line for line in out.splitlines()[1:] if line and not line.endswith(":")] == []
    assert status in (0, 1)


def test_kernel_settings_cannot_be_written(run: Run) -> None:
    _, _, err = run("sh", "-c", "echo 1 > /proc/sys/kernel/panic; mount -o remount,rw /proc/sys")
    assert "Read-only file system" in err
    assert "not permitted" in err or "denied" in err


def test_sysfs_is_read_only(run: Run) -> None:
    script = "mkdir /sys/kernel/x; for d in /sys/fs/cgroup/*/; do mkdir $d/x && exit 9; done; true"
    status, _, err = run("sh", "-c", script)
    assert status == 0
    assert "Read-only" in err


def test_mounting_is_refused(run: Run) -> None:
    status, _, err = run("mount", "-t", "tmpfs", "none", "/tmp")
    assert status != 0
    assert "denied" in err or "not permitted" in err


def test_block_device_of_host_cannot_be_read(run: Run, rootfs: Path) -> None:
    disk = next((d for d in ("/dev/vda", "/dev/sda", "/dev/loop0") if os.path.exists(d)), None)
    if disk is None:
        host_lacks("a block device to try")
    number = os.stat(disk).st_rdev
    status, _, err = run(
        "sh",
        "-c",
        f"mknod /dev/disk b {os.major(number)} {os.minor(number)} && head -c 1 /dev/disk",
    )
    assert status != 0
    assert "not permitted" in err


def test_default_devices_work(run: Run) -> None:
    script = (
        "echo x > /dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c "
        "&& ls /dev"
    )
    status, out, _ = run("sh", "-c", script)
    assert status == 0
    assert out.split()[:2] == ["4", "4"]
    assert {"null", "zero", "full", "random", "urandom", "tty", "shm", "pts"} <= set(out.split())


def test_privileged_has_devices_and_no_filter(run: Run) -> None:
    found = status_of(run, privileged=True)
    assert found["Seccomp"] == "0"
    assert int(found["CapEff"], 16) & (1 << 21)
    status, out, _ = run("ls", "/dev", privileged=True)
    assert status == 0
    assert {"kmsg", "null"} <= set(out.split())


def test_processes_of_host_are_not_seen(run: Run) -> None:
    _, out, _ = run("sh", "-c", "ls -d /proc/[0-9]* | wc -l; echo $$")
    count, own = out.split()
    assert own == "1"
    assert int(count) <= 4


def test_own_network_has_only_loopback(run: Run) -> None:
    _, out, _ = run("ls", "/sys/class/net")
    assert out.split() == ["lo"]


def test_host_network_is_the_hosts(run: Run) -> None:
    _, out, _ = run("readlink", "/proc/self/ns/net", host_network=True)
    assert out.strip() == os.readlink("/proc/self/ns/net")


def test_network_namespace_held_by_a_descriptor_is_joined(run: Run) -> None:
    holder = subprocess.Popen(["unshare", "-n", "cat"], stdin=subprocess.PIPE)
    assert holder.stdin is not None
    own = os.readlink("/proc/self/ns/net")
    try:
        wait_until(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != own, process=holder)
        fd = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        holder.stdin.close()
        holder.wait()
    try:
        path = f"/proc/{os.getpid()}/fd/{fd}"
        _, out, _ = run("readlink", "/proc/self/ns/net", network_ns=path)
        assert out.strip() == os.readlink(path)
    finally:
        os.close(fd)


def test_read_only_root_refuses_writes(run: Run) -> None:
    status, _, err = run("touch", "/work/x", read_only=True)
    assert status == 1
    assert "Read-only" in err


def test_bind_and_tmpfs_mounts(run: Run, tmp_path: Path, rootfs: Path) -> None:
    source = tmp_path / "shared"
    source.mkdir()
    (source / "file").write_text("hello")
    mounts = (
        Mount("/data/deep", "bind", str(source), ("ro",)),
        Mount("/scratch", "tmpfs", "", ("size=64k", "mode=1777")),
    )
    status, out, err = run(
        "sh",
        "-c",
        "cat /data/deep/file; touch /data/deep/x; dd if=/dev/zero of=/scratch/f bs=128k count=1",
        mounts=mounts,
    )
    assert status == 1
    assert out == "hello"
    assert "Read-only" in err
    assert "No space" in err
    assert not (rootfs / "data").exists()
    assert not (rootfs / "scratch").exists()


def test_bind_mount_from_an_open_directory(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "opened"
    source.mkdir()
    (source / "file").write_text("by descriptor")
    fd = os.open(source, os.O_PATH | os.O_DIRECTORY)
    try:
        mounts = (Mount("/data", "bind", f"/proc/self/fd/{fd}", ("ro",)),)
        assert run("cat", "/data/file", mounts=mounts)[:2] == (0, "by descriptor")
    finally:
        os.close(fd)


def test_limits_are_set(run: Run) -> None:
    script = (
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; "
        "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max"
    )
    _, out, _ = run("sh", "-c", script, memory=64 << 20, pids_limit=33)
    assert out.split() == [str(64 << 20), "33"]


def test_memory_limit_kills(run: Run) -> None:
    status, _, _ = run("dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1", memory=16 << 20)
    assert status == 137


def test_ulimit_is_set(run: Run) -> None:
    _, out, _ = run("sh", "-c", "ulimit -n; ulimit -Hn", ulimits=(("nofile", 100, 200),))
    assert out.split() == ["100", "200"]


def test_ulimit_above_the_hosts_is_an_error_that_says_so(run: Run) -> None:
    if int(Path("/proc/self/status").read_text().split("CapEff:\t")[1][:16], 16) >> 24 & 1:
        host_lacks("limits that hold for this process")
    with pytest.raises(LaminaError, match=r"(?i)rlimit"):
        run("true", ulimits=(("nofile", 1 << 20, 1 << 20),))


def test_signals_ignored_by_python_are_not_ignored_inside(run: Run) -> None:
    found = status_of(run)
    # The C library's own two real-time signals (32, 33) may be inherited ignored.
    assert int(found["SigIgn"], 16) & 0x7FFFFFFF == 0
    assert int(found["SigBlk"], 16) & 0x7FFFFFFF == 0


def test_no_descriptor_leaks_into_the_container(run: Run) -> None:
    _, out, _ = run("sh", "-c", "ls /proc/1/fd; true")
    assert out.split() == ["0", "1", "2"]


def test_umask_and_hostname(run: Run) -> None:
    _, out, _ = run("sh", "-c", "umask; hostname; env", hostname="box")
    assert out.split()[:2] == ["0022", "box"]
    assert "HOSTNAME=box" in out


def test_unknown_capability_is_refused(run: Run) -> None:
    with pytest.raises(LaminaError) as caught:
        run("true", cap_add=("FLY",))
    assert caught.value.kind is Kind.USAGE


def test_program_of_another_architecture_needs_an_image_of_it(run: Run, rootfs: Path) -> None:
    if os.uname().machine != "x86_64":
        host_lacks("an x86 processor, for which there is a 32-bit program here")
    program = rootfs / "bin/exit32"
    program.write_bytes(_I386_EXIT)
    program.chmod(0o755)
    if subprocess.run([program], check=False).returncode != 0:
        host_lacks("a kernel that runs 32-bit programs")
    assert run("/bin/exit32")[0] != 0
    assert run("/bin/exit32", architecture="386")[0] == 0


# A static ELF32 executable: xor ebx, ebx; push 1; pop eax; int 0x80
_I386_EXIT = bytes.fromhex(
    "7f454c46010101000000000000000000 0200 0300 01000000 54800408 34000000 00000000 00000000"
    "3400 2000 0100 0000 0000 0000"
    "01000000 00000000 00800408 00800408 5b000000 5b000000 05000000 00100000"
    "31db 6a01 58 cd80"
)
