# SPDX-License-Identifier: Apache-2.0
"""What this host lets containers have: control groups, seccomp, capabilities, a runtime."""

from __future__ import annotations

import os
import stat

from lamina.container.capabilities import from_mask
from lamina.container.spec import TTY_GROUP, Device, HostFacts
from lamina.errors import Kind, LaminaError
from lamina.start.record import Record, replace
from lamina.system.userns import is_mapped, is_namespaced

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.container.ports import ProcessSpec

_DOCKER_SYSCTLS = (  # moby daemon/oci_linux.go: an unprivileged process may listen and ping
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
)
_MEMORY = "/sys/fs/cgroup/memory"  # of v1: v2 counts swap apart, and may not count it at all
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
    `delegated` is the group in which an ordinary user's containers have theirs (`delegation`).
    """

    mode: str
    unified: str = ""
    controllers: tuple[str, ...] = ()
    delegated: str = ""


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


def read_cgroups(*, delegated: bool = False) -> Cgroups:
    """The control groups of this host; with `delegated` also what an ordinary user may use of them."""
    mountinfo = _read("/proc/self/mountinfo")
    point = parse_cgroups(mountinfo, unified_controllers="any").unified
    found = parse_cgroups(mountinfo, unified_controllers=_controllers(point))
    if not (delegated and found.mode == "v2" and is_namespaced()):
        return found
    from lamina.container.delegation import find_delegated

    group = find_delegated(_read("/proc/self/cgroup"), root=found.unified)
    if group is None:
        return found
    return replace(found, controllers=group.controllers, delegated=group.group)


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
    namespaced = is_namespaced()
    managed = manager != "disabled" and cgroups.mode != "none"
    uname = os.uname()
    return HostFacts(
        architecture=_MACHINES.get(uname.machine, uname.machine),
        kernel=kernel_version(uname.release),
        capabilities=from_mask(capability_mask(_read("/proc/self/status"))),
        cgroup_namespaces=os.path.exists("/proc/self/ns/cgroup"),
        cgroup_mounts=cgroups.mode != "none" and (managed or not namespaced),
        # in a user namespace the kernel takes no program that would guard devices
        device_control=managed
        and not namespaced
        and (cgroups.mode == "v2" or "devices" in cgroups.controllers),
        nodev=nodev,
        mqueue=os.path.isdir("/proc/sys/fs/mqueue"),
        sysctls=tuple(
            (name, value)
            for name, value in _DOCKER_SYSCTLS
            if os.path.exists("/proc/sys/" + name.replace(".", "/"))
            # as moby: all groups are more than a user namespace has
            and not (namespaced and name.endswith("ping_group_range"))
        ),
        namespaced=namespaced,
        tty_group=not namespaced or is_mapped(0, TTY_GROUP),
        oom_score=_own_oom_score() if namespaced else 0,
        swap_limits=managed and os.path.exists(f"{_MEMORY}/memory.memsw.limit_in_bytes"),
    )


def _own_oom_score() -> int:
    """This process's, which one without CAP_SYS_RESOURCE cannot go below."""
    text = _read("/proc/self/oom_score_adj").strip()
    return max(int(text), 0) if text.lstrip("-").isdigit() else 0


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


def list_devices(directory: str = "/dev", shown: str = "/dev") -> tuple[Device, ...]:
    """The device nodes beneath `directory`, named beneath `shown`, sorted by name.

    Terminals, shared memory and queues are the container's own, as in Docker.
    """
    return tuple(sorted(_devices(directory, shown), key=lambda device: device.path))


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


_DELEGATE = (
    "'lamina info' tells what was found; where systemd runs, containers that are started by "
    "'systemd-run --user --scope lamina run ...' have limits"
)


class NoRuntime(LaminaError):
    kind = Kind.SYSTEM


class Runtime(Record):
    """A runtime that works here, and how.

    `nodev`: it keeps device nodes of the root filesystem from being opened. `manager` is crun's `--cgroup-manager` (`cgroupfs`, or `disabled` where no control group can
    be made; runc only knows `cgroupfs`). `shield` is the cgroup2 mount point that must be covered
    with an empty tmpfs in the runtime's mount namespace, or empty. `refused` are (way, why) of
    what was tried before. `program` is the default filter as crun compiled it: see `filterprogram`.
    """

    name: str
    path: str
    version: str
    manager: str
    cgroups: Cgroups
    shield: str
    seccomp: bool
    host: HostFacts
    nodev: bool = False
    why: str = ""
    refused: tuple[tuple[str, str], ...] = ()
    program: str = ""
    program_digest: str = ""

    def command(self, verb: str, *arguments: str, root: str, log: str = "") -> tuple[str, ...]:
        """The argument vector of `<runtime> [options] verb arguments` with its state in `root`.

        With `log` the runtime's own errors also go to that file, for `errorlog.read_error`. If `shield` is set the
        caller runs it in a mount namespace where that path is covered (`mounts.isolate` does so).
        """
        options = ["--root", root]
        if self.name != "runc":
            options.append(f"--cgroup-manager={self.manager}")
        if log:
            # crun would write JSON to the container's stderr too, where people read it.
            log_format = "json" if self.name == "runc" else "text"
            options += ["--log", log, "--log-format", log_format]
        return (self.path, *options, verb, *arguments)

    def cgroup_path(self, id: str) -> str:
        """`cgroupsPath` of container `id`: a group of its own, empty for none."""
        if self.manager == "disabled":
            return ""
        return f"/{self.cgroups.delegated}/{id}" if self.cgroups.delegated else f"/{id}"

    def describe(self) -> tuple[tuple[str, str], ...]:
        """(name, value) rows for `lamina info`."""
        mode = self.cgroups.mode
        if self.shield:
            mode += f" ({self.shield} is hidden from {self.name})"
        devices = "those of images cannot be opened" if self.nodev else "those of images are usable"
        devices += "; guarded by a control group"
        if not self.host.device_control:
            devices = "those of images cannot be opened; no control group: CAP_MKNOD is withheld"
        rows = [
            ("Runtime", f"{self.name} {self.version} ({self.path})"),
            ("Runtime chosen", self.why),
            ("Cgroup mode", mode),
            ("Cgroup manager", self.manager),
            ("Limits", _limits(self)),
            ("Seccomp", "Docker's default profile" if self.seccomp else "not in this kernel"),
            ("Devices", devices),
        ]
        return (*rows, *(("Runtime refused", f"{way}: {why}") for way, why in self.refused))


def _limits(runtime: Runtime) -> str:
    if runtime.manager == "disabled":
        return "none: no control group can be made"
    where = f", in the delegated /{runtime.cgroups.delegated}" if runtime.cgroups.delegated else ""
    return f"{', '.join(runtime.cgroups.controllers) or 'none'}{where}"


def check_limits(process: ProcessSpec, runtime: Runtime) -> None:
    """A limit that nothing would enforce is an error, never ignored.

    Raises:
        LaminaError: kind UNSUPPORTED, naming the flag and the control group.
    """
    extras: list[tuple[str, str, bool]] = []
    if process.extras is not None or process.memory_swap:
        from lamina.container.limits import check_offered, wanted_of

        extras = wanted_of(process, runtime.cgroups.mode)
    wanted = (
        ("memory", "--memory", process.memory > 0),
        ("cpu", "--cpus", process.cpus > 0),
        ("cpu", "--cpu-shares", process.cpu_shares > 0),
        ("cpuset", "--cpuset-cpus", bool(process.cpuset_cpus)),
        ("cpuset", "--cpuset-mems", bool(process.cpuset_mems)),
        ("pids", "--pids-limit", process.pids_limit > 0),
        *extras,
    )
    for controller, flag, is_asked in wanted:
        if not is_asked:
            continue
        if runtime.manager == "disabled" or controller not in runtime.cgroups.controllers:
            raise LaminaError(
                f"{flag} cannot be enforced: this host has no {controller} control group "
                f"that {runtime.name} could use",
                kind=Kind.UNSUPPORTED,
                hint=_DELEGATE if runtime.host.namespaced else "'lamina info' tells what was found",
            )
    if extras:
        check_offered(process, runtime.cgroups.mode)
