# SPDX-License-Identifier: Apache-2.0
"""A process and the host's facts -> the OCI runtime spec, with Docker's defaults (pure).

`make_spec` decides everything that confines a container, so that it can be tested as a value.
Sources: runtime-spec config.md and config-linux.md; moby daemon/pkg/oci/defaults.go for masked
and read-only paths, mounts and device rules.
"""

from __future__ import annotations

from lamina.container.capabilities import container_capabilities
from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamina.container.ports import Mount, ProcessSpec
    from lamina.container.users import ResolvedUser

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_HOSTNAME = "lamina"
DEFAULT_SHM_SIZE = 64 << 20  # bytes, Docker's
CPU_PERIOD = 100_000  # microseconds, the kernel's default

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_DEVICE_RULES = (  # (type, major, minor, access); the runtime makes these devices in /dev
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", 1, 3, "rwm"),  # null
    ("c", 1, 5, "rwm"),  # zero
    ("c", 1, 7, "rwm"),  # full
    ("c", 1, 8, "rwm"),  # random
    ("c", 1, 9, "rwm"),  # urandom
    ("c", 5, 0, "rwm"),  # tty
    ("c", 5, 1, "rwm"),  # console
    ("c", 5, 2, "rwm"),  # ptmx
    ("c", 136, None, "rwm"),  # pseudo terminals
)

RLIMITS = frozenset(
    [
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    ]
)

# Options a mount may have (buildah CVE-2024-9407: an option is data, not a list to be spliced).
_FLAGS = frozenset(
    [
        "ro",
        "rw",
        "bind",
        "rbind",
        "nosuid",
        "suid",
        "nodev",
        "dev",
        "noexec",
        "exec",
        "noatime",
        "relatime",
        "strictatime",
        "nodiratime",
        "private",
        "rprivate",
        "slave",
        "rslave",
        "shared",
        "rshared",
    ]
)
_TMPFS_OPTIONS = frozenset(("size", "mode", "uid", "gid", "nr_inodes"))


TTY_GROUP = 5  # gid of terminals, in every distribution
ROOT_GUARD = "/."  # the root by a name that crun and runc take for a mount like others


class InvalidMount(LaminaError):
    kind = Kind.INVALID


class Device(Record):
    """A device node of the host, for privileged containers. `type` is `c` or `b`."""

    path: str
    type: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int


class HostFacts(Record):
    """What the host allows, found out once (`host.py`).

    `capabilities` are those this process can pass on. `device_control` says whether a device
    control group guards the container: without one, the right to make device nodes is withheld
    from containers that did not ask for it. `namespaced`: the runtime is root of a user namespace,
    where sysfs belongs to whoever owns the network. `tty_group`: the group of terminals is known
    here. `oom_score` is the lowest that a container can be given. `swap_limits`: swap is counted. `nodev` says that the
    runtime was seen to keep device nodes of the root filesystem from being opened if it is told to.
    """

    architecture: str
    kernel: tuple[int, int]
    capabilities: tuple[str, ...]
    cgroup_namespaces: bool = True
    cgroup_mounts: bool = True
    device_control: bool = True
    nodev: bool = False
    mqueue: bool = True
    sysctls: tuple[tuple[str, str], ...] = ()  # what Docker sets in a new network namespace
    namespaced: bool = False
    tty_group: bool = True
    oom_score: int = 0
    swap_limits: bool = False


def make_spec(
    process: ProcessSpec,
    *,
    rootfs: str,
    user: ResolvedUser,
    host: HostFacts,
    seccomp: Mapping[str, object] | None,
    etc_mounts: Sequence[Mount] = (),
    cgroup: str = "",
    devices: Sequence[Device] = (),
) -> dict[str, object]:
    """`config.json` for `process` in `rootfs` (an absolute path).

    `seccomp` is `linux.seccomp` or None for none. `etc_mounts` come before the process's own
    mounts, so that those win. `cgroup` is the container's control group path, empty for none.
    `devices` are added for a privileged container.

    Raises:
        LaminaError: kind USAGE or INVALID: bad capability, mount, ulimit or cwd; DENIED for a
            capability this process does not have.
    """
    guarded = host.nodev and not process.privileged
    mounts = _mounts(process, host, etc_mounts)
    if guarded:
        mounts.append(_root_guard(rootfs, read_only=process.read_only))
    spec: dict[str, object] = {
        "ociVersion": "1.0.2",
        "process": _process(process, user, host),
        "root": {"path": rootfs, "readonly": process.read_only and not guarded},
        "mounts": mounts,
        "linux": _linux(process, host, seccomp, cgroup, devices),
    }
    spec["hostname"] = process.hostname or DEFAULT_HOSTNAME
    return spec


def granted_capabilities(process: ProcessSpec, host: HostFacts) -> tuple[str, ...]:
    """The capabilities the container gets on this host, by number.

    Raises:
        LaminaError: kind USAGE for an unknown name, DENIED for one that is not available.
    """
    names = container_capabilities(
        process.cap_add,
        process.cap_drop,
        privileged=process.privileged,
        available=host.capabilities,
    )
    asked = {text.upper().removeprefix("CAP_") for text in process.cap_add}
    if host.device_control or process.privileged or asked & {"MKNOD", "ALL"}:
        return names
    return tuple(name for name in names if name != "CAP_MKNOD")


def container_environment(process: ProcessSpec, user: ResolvedUser) -> list[str]:
    """`NAME=value` in order; PATH, HOSTNAME, TERM and HOME are added where Docker adds them."""
    found = dict(process.env) | dict(process.secret_env)
    defaults = {"PATH": DEFAULT_PATH}
    if process.hostname:
        defaults["HOSTNAME"] = process.hostname
    if process.terminal:
        defaults["TERM"] = "xterm"
    result = [f"{name}={value}" for name, value in defaults.items() if name not in found]
    result += [f"{name}={value}" for name, value in found.items()]
    if not found.get("HOME"):
        result = [text for text in result if not text.startswith("HOME=")]
        result.append(f"HOME={user.home}")
    return result


def _process(process: ProcessSpec, user: ResolvedUser, host: HostFacts) -> dict[str, object]:
    if not process.argv or not process.argv[0]:
        raise LaminaError("no command specified", kind=Kind.USAGE)
    names = list(granted_capabilities(process, host))
    document: dict[str, object] = {
        "terminal": process.terminal,
        "user": {
            "uid": user.uid,
            "gid": user.gid,
            "additionalGids": list(user.groups),
            "umask": 0o022,
        },
        "args": list(process.argv),
        "env": container_environment(process, user),
        "cwd": checked_path(process.cwd or "/", what="working directory"),
        # No inheritable set, as moby since CVE-2022-24769, hence no ambient one.
        "capabilities": {"bounding": names, "effective": names, "permitted": names},
        "noNewPrivileges": process.no_new_privileges,
        "oomScoreAdj": host.oom_score,
    }
    if process.extras is not None and process.extras.oom_score_adj:
        document["oomScoreAdj"] = process.extras.oom_score_adj
    if process.ulimits:
        document["rlimits"] = [_rlimit(*limit) for limit in process.ulimits]
    return document


def _rlimit(name: str, soft: int, hard: int) -> dict[str, object]:
    if name not in RLIMITS:
        raise LaminaError(f"invalid ulimit type {name!r}", kind=Kind.USAGE)
    unlimited = (1 << 64) - 1
    low, high = (unlimited if value < 0 else value for value in (soft, hard))
    if low > high:
        raise LaminaError(
            f"ulimit {name}: soft limit {soft} is above hard limit {hard}", kind=Kind.USAGE
        )
    return {"type": f"RLIMIT_{name.upper()}", "soft": low, "hard": high}


def checked_path(path: str, *, what: str) -> str:
    """`path`, normalised without looking at any file system.

    Raises:
        LaminaError: kind INVALID if it is not absolute, has a `..`, or a NUL.
    """
    parts = path.split("/")
    if not path.startswith("/") or ".." in parts or "\0" in path or "\n" in path:
        raise LaminaError(f"invalid {what} {path!r}: not a plain absolute path", kind=Kind.INVALID)
    return "/" + "/".join(part for part in parts if part not in ("", "."))


def default_mounts(process: ProcessSpec, host: HostFacts) -> list[dict[str, object]]:
    """The mounts every container has."""
    writable = process.privileged
    guarded = ["nosuid", "noexec", "nodev"]
    sysfs = [*guarded, "rw" if writable else "ro"]
    shm = [*guarded, "mode=1777", f"size={process.shm_size or DEFAULT_SHM_SIZE}"]
    terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    terminals += [f"gid={TTY_GROUP}"] if host.tty_group else []
    system = _mount("/sys", "sysfs", "sysfs", sysfs)
    if host.namespaced and process.host_network:
        # the kernel mounts sysfs only for the owner of the network that it shows
        system = _mount("/sys", "bind", "/sys", ["rbind", "rslave", *sysfs])
    mounts = [
        _mount("/proc", "proc", "proc", guarded),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", "devpts", terminals),
        system,
    ]
    if host.cgroup_mounts:
        options = [*guarded, "relatime", "rw" if writable else "ro"]
        mounts.append(_mount("/sys/fs/cgroup", "cgroup", "cgroup", options))
    if host.mqueue:
        mounts.append(_mount("/dev/mqueue", "mqueue", "mqueue", guarded))
    mounts.append(_mount("/dev/shm", "tmpfs", "shm", shm))  # noqa: S108  # the container's own
    return mounts


def _mount(destination: str, kind: str, source: str, options: Sequence[str]) -> dict[str, object]:
    return {
        "destination": destination,
        "type": kind,
        "source": source,
        "options": list(options),
    }


def _mounts(
    process: ProcessSpec, host: HostFacts, etc_mounts: Sequence[Mount]
) -> list[dict[str, object]]:
    """Default mounts, then the others by depth: a parent is mounted before what lies in it."""
    chosen: dict[str, dict[str, object]] = {}
    for mount in (*etc_mounts, *process.mounts):
        document = _asked_mount(mount, process.privileged)
        chosen[str(document["destination"])] = document
    defaults = [
        mount for mount in default_mounts(process, host) if mount["destination"] not in chosen
    ]
    by_depth = sorted(chosen.values(), key=lambda mount: str(mount["destination"]).count("/"))
    return [*defaults, *by_depth]


def _root_guard(rootfs: str, *, read_only: bool) -> dict[str, object]:
    """The last of the mounts: makes device nodes in the root filesystem useless.

    It was mounted so (`mounts.mount_overlay`), but runtimes bind it once more and set its flags
    anew: crun always, runc for a read-only root. So the root becomes read-only here, too.
    """
    options = ["bind", "remount", "nodev", *(["ro"] if read_only else [])]
    return _mount(ROOT_GUARD, "bind", rootfs, options)


def _asked_mount(mount: Mount, privileged: bool) -> dict[str, object]:  # noqa: FBT001  # private
    destination = checked_path(mount.destination, what="mount destination")
    if destination == "/":
        raise InvalidMount("invalid mount destination '/': it is the root file system")
    top = destination.split("/")[1]
    if top in ("proc", "sys") and not privileged:
        raise InvalidMount(f"invalid mount destination {destination!r}: it lies in /{top}")
    if mount.type not in ("bind", "tmpfs"):
        raise InvalidMount(f"mount type {mount.type!r} at {destination} is neither bind nor tmpfs")
    options = [_option(option, mount) for option in mount.options]
    if mount.type == "bind":
        source = checked_path(mount.source, what="mount source")
        if not {"bind", "rbind"} & set(options):
            options.insert(0, "rbind")
        if not any("private" in o or "slave" in o or "shared" in o for o in options):
            options.append("rprivate")
        return _mount(destination, "bind", source, options)
    # left out and not cleared: runtimes differ in what `noexec,exec` means
    guards = {"nosuid": "suid", "nodev": "dev", "noexec": "exec"}
    kept = [guard for guard, cleared in guards.items() if cleared not in options]
    return _mount(destination, "tmpfs", "tmpfs", [*kept, *options])


def _option(option: str, mount: Mount) -> str:
    name, equals, value = option.partition("=")
    if option in _FLAGS:
        return option
    if mount.type == "tmpfs" and equals and name in _TMPFS_OPTIONS and value.isalnum():
        return option
    raise InvalidMount(f"mount at {mount.destination}: option {option!r} is not supported")


def _linux(
    process: ProcessSpec,
    host: HostFacts,
    seccomp: Mapping[str, object] | None,
    cgroup: str,
    devices: Sequence[Device],
) -> dict[str, object]:
    document: dict[str, object] = {
        "namespaces": _namespaces(process, host),
        "resources": resources_of(process, host),
    }
    if cgroup:
        document["cgroupsPath"] = cgroup
    sysctls = {} if process.host_network else dict(host.sysctls)
    sysctls.update(process.sysctls)
    if sysctls:
        document["sysctl"] = sysctls
    if process.privileged:
        document["devices"] = [node_of(device) for device in devices]
        return document
    document["maskedPaths"] = list(MASKED_PATHS)
    document["readonlyPaths"] = list(READONLY_PATHS)
    if seccomp is not None:
        document["seccomp"] = dict(seccomp)
    return document


def _namespaces(process: ProcessSpec, host: HostFacts) -> list[dict[str, object]]:
    names = ["pid", "ipc", "uts", "mount"]
    if host.cgroup_namespaces and not process.privileged:
        names.append("cgroup")
    namespaces: list[dict[str, object]] = [{"type": name} for name in names]
    if process.network_ns:
        path = checked_path(process.network_ns, what="network namespace")
        namespaces.append({"type": "network", "path": path})
    elif not process.host_network:
        namespaces.append({"type": "network"})
    return namespaces


def resources_of(process: ProcessSpec, host: HostFacts) -> dict[str, object]:
    """`linux.resources`: the limits, and the devices that may be used."""
    resources: dict[str, object] = {}
    if host.device_control:
        resources["devices"] = _device_rules(process)
    if process.memory > 0:
        memory = {"limit": process.memory}
        swap = process.memory_swap or (2 * process.memory if host.swap_limits else 0)  # as moby
        if swap:
            memory["swap"] = swap
        resources["memory"] = memory
    cpu: dict[str, object] = {}
    if process.cpus > 0:
        period = process.cpu_period or CPU_PERIOD
        cpu |= {"quota": round(process.cpus * period), "period": period}
    if process.cpu_shares:
        cpu["shares"] = process.cpu_shares
    if process.cpuset_cpus:
        cpu["cpus"] = process.cpuset_cpus
    if process.cpuset_mems:
        cpu["mems"] = process.cpuset_mems
    if cpu:
        resources["cpu"] = cpu
    if process.pids_limit > 0:
        resources["pids"] = {"limit": process.pids_limit}
    return resources


def _device_rules(process: ProcessSpec) -> list[dict[str, object]]:
    if process.privileged:
        return [{"allow": True, "access": "rwm"}]
    rules: list[dict[str, object]] = [{"allow": False, "access": "rwm"}]
    for kind, major, minor, access in _DEVICE_RULES:
        rule: dict[str, object] = {"allow": True, "type": kind, "access": access}
        if major is not None:
            rule["major"] = major
        if minor is not None:
            rule["minor"] = minor
        rules.append(rule)
    return rules


def node_of(device: Device) -> dict[str, object]:
    """The runtime spec's `linux.devices` entry."""
    return {
        "path": device.path,
        "type": device.type,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode,
        "uid": device.uid,
        "gid": device.gid,
    }
