# SPDX-License-Identifier: Apache-2.0
"""What this host lets containers have: control groups, seccomp, capabilities, namespaces."""

from __future__ import annotations

import os
import stat

from lamina.container.capabilities import from_mask
from lamina.container.spec import Device, HostFacts
from lamina.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DOCKER_SYSCTLS = (  # moby daemon/oci_linux.go: an unprivileged process may listen and ping
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
)
_V2 = frozenset(("cpuset", "cpu", "blkio", "memory", "hugetlb", "pids", "rdma", "misc"))
_MACHINES = {
    "x86_64": "amd64",
    "i686": "386",
    "aarch64": "arm64",
    "armv7l": "arm",
    "loongarch64": "loong64",
}


class Cgroups(Record):
    """How control groups are mounted: `mode` is v1, v2, hybrid or none.

    hybrid: v1 hierarchies, and beside them a v2 mount (at `unified`) that owns a controller.
    """

    mode: str
    unified: str = ""
    controllers: tuple[str, ...] = ()


def parse_cgroups(mountinfo: str, *, unified_controllers: str) -> Cgroups:
    """Control groups from the text of /proc/self/mountinfo (pure).

    `unified_controllers` is the text of the v2 mount's `cgroup.controllers`.
    """
    v1: list[str] = []
    unified = ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind = after.split(" ")[0]
        point = before.split(" ")[4] if before.count(" ") >= 4 else ""
        if not point.startswith("/sys/fs/cgroup"):
            continue
        if kind == "cgroup":
            v1 += point.rpartition("/")[2].split(",")
        elif kind == "cgroup2":
            unified = point
    if v1 and unified and unified_controllers.split():
        return Cgroups("hybrid", unified, tuple(v1))
    if v1:
        return Cgroups("v1", "", tuple(v1))
    if unified:
        return Cgroups("v2", unified, tuple(unified_controllers.split()))
    return Cgroups("none")


def read_cgroups() -> Cgroups:
    """The control groups of this host."""
    mountinfo = _read("/proc/self/mountinfo")
    point = parse_cgroups(mountinfo, unified_controllers="any").unified
    return parse_cgroups(mountinfo, unified_controllers=_controllers(point))


def _controllers(point: str) -> str:
    """The controllers of the v2 mount.

    lamina's own mount namespace may cover the mount of a hybrid host with an empty tmpfs; what is
    not bound to a v1 hierarchy (0 in /proc/cgroups) is then what the v2 mount owns.
    """
    if not point:
        return ""
    found = _read(f"{point}/cgroup.controllers")
    if found or os.path.exists(f"{point}/cgroup.procs"):
        return found
    rows = (line.split() for line in _read("/proc/cgroups").splitlines() if line[:1] != "#")
    return " ".join(row[0] for row in rows if row[1:] and row[1] == "0" and row[0] in _V2)


def has_seccomp() -> bool:
    """Whether the kernel filters system calls."""
    return os.path.exists("/proc/sys/kernel/seccomp/actions_avail")


def read_facts(cgroups: Cgroups, *, manager: str, nodev: bool = False) -> HostFacts:
    """The facts `make_spec` needs, for a runtime that uses this cgroup manager, and was seen to
    guard device nodes (`nodev`) or not.
    """
    managed = manager != "disabled" and cgroups.mode != "none"
    uname = os.uname()
    return HostFacts(
        architecture=_MACHINES.get(uname.machine, uname.machine),
        kernel=kernel_version(uname.release),
        capabilities=from_mask(capability_mask(_read("/proc/self/status"))),
        cgroup_namespaces=os.path.exists("/proc/self/ns/cgroup"),
        cgroup_mounts=cgroups.mode != "none",
        device_control=managed and (cgroups.mode == "v2" or "devices" in cgroups.controllers),
        nodev=nodev,
        mqueue=os.path.isdir("/proc/sys/fs/mqueue"),
        sysctls=tuple(
            (name, value)
            for name, value in _DOCKER_SYSCTLS
            if os.path.exists("/proc/sys/" + name.replace(".", "/"))
        ),
    )


def kernel_version(release: str) -> tuple[int, int]:
    """(6, 18) of `6.18.44-fc`."""
    numbers = release.replace("-", ".").split(".")
    return int(numbers[0]), int(numbers[1]) if len(numbers) > 1 and numbers[1].isdigit() else 0


def capability_mask(status: str) -> int:
    """What a child can be given: permitted and bounding, from /proc/PID/status."""
    masks = {"CapPrm": 0, "CapBnd": 0}
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name in masks:
            masks[name] = int(value, 16)
    return masks["CapPrm"] & masks["CapBnd"]


def list_devices(directory: str = "/dev") -> tuple[Device, ...]:
    """The device nodes of the host that a privileged container gets, sorted.

    Terminals, shared memory and queues are the container's own, as in Docker.
    """
    return tuple(sorted(_devices(directory, "/dev"), key=lambda device: device.path))


_OWN = frozenset(("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"))


def _devices(directory: str, shown: str) -> Iterator[Device]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name in _OWN:
                continue
            path = f"{shown}/{entry.name}"
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                yield from _devices(entry.path, path)
            elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                yield Device(
                    path=path,
                    type="c" if stat.S_ISCHR(status.st_mode) else "b",
                    major=os.major(status.st_rdev),
                    minor=os.minor(status.st_rdev),
                    mode=stat.S_IMODE(status.st_mode),
                    uid=status.st_uid,
                    gid=status.st_gid,
                )


def _read(path: str) -> str:
    """The text of a kernel file, empty if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
