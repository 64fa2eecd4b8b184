# SPDX-License-Identifier: Apache-2.0
"""A runtime spec with what `Extras` ask for, added to what `make_spec` decided."""

from __future__ import annotations

import os

from lamina.container.cdi import add_cdi_devices
from lamina.container.devices import add_devices, add_rules
from lamina.container.extras import INIT_PATH, JOINS
from lamina.container.init import find_init
from lamina.container.joining import Joined
from lamina.container.limits import add_resources
from lamina.container.spec import ROOT_GUARD
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lamina.container.extras import Extras
    from lamina.container.host import Runtime
    from lamina.container.spec import HostFacts

_SHM, _MQUEUE = "/dev/shm", "/dev/mqueue"  # noqa: S108  # paths inside containers


def refine(
    spec: dict[str, Any], extras: Extras, runtime: Runtime, *, root: str, directory: str
) -> Joined:
    """Change `spec` in place; what it names is held open until the caller closes the result.

    `root` is the store's, `directory` the container's own; what is mounted there is in this
    process's mount namespace.

    Raises LaminaError, of the kind that each part gives.
    """
    host, linux = runtime.host, spec["linux"]
    _check_score(extras, host)
    if extras.cgroup_parent:
        _require_groups(f"--cgroup-parent {extras.cgroup_parent}", "to lie beneath it", runtime)
    add_resources(linux["resources"], extras)
    add_devices(spec, extras.devices, host)
    add_rules(linux, extras.device_rules, host)
    if extras.cdi:
        add_cdi_devices(spec, extras.cdi, host)
    if extras.annotations:
        spec["annotations"] = dict(extras.annotations)
    if extras.bare_system_paths:
        linux.pop("maskedPaths", None)
        linux.pop("readonlyPaths", None)
    if extras.apparmor:
        spec["process"]["apparmorProfile"] = extras.apparmor
    if extras.init and not extras.pid:  # moby: only where it would be process 1
        _add_init(spec)
    joined = Joined()
    try:
        _share(spec, extras, runtime, joined, root=root, directory=directory)
    except BaseException:
        joined.close()
        raise
    return joined


def _check_score(extras: Extras, host: HostFacts) -> None:
    if host.namespaced and extras.oom_score_adj and extras.oom_score_adj < host.oom_score:
        raise LaminaError(
            f"--oom-score-adj {extras.oom_score_adj} is not allowed without root: "
            f"{host.oom_score} is the lowest",
            kind=Kind.DENIED,
        )


def _require_groups(flag: str, what_for: str, runtime: Runtime) -> None:
    if runtime.manager == "disabled":
        raise LaminaError(
            f"{flag} needs a control group, {what_for}",
            kind=Kind.UNSUPPORTED,
            hint="'lamina info' tells what was found on this host",
        )


def _add_init(spec: dict[str, Any]) -> None:
    program = find_init()
    spec["process"]["args"] = [INIT_PATH, "--", *spec["process"]["args"]]
    _insert(spec, _bind(INIT_PATH, program, "ro", "nosuid", "nodev"))


def _share(
    spec: dict[str, Any],
    extras: Extras,
    runtime: Runtime,
    joined: Joined,
    *,
    root: str,
    directory: str,
) -> None:
    """The namespaces that are the host's or another container's."""
    if extras.pid:
        why = "by which all that it started can be ended"
        _require_groups(f"--pid {extras.pid}", why, runtime)
        _use(spec, "pid", _path_of(extras.pid, "pid", joined, root=root))
        if runtime.host.namespaced:  # the kernel mounts procfs only for the owner of the pids
            _replace_mount(spec, _bind("/proc", "/proc", "nosuid", "nodev", "noexec"))
    if extras.uts == "host":
        _use(spec, "uts", "")
        spec.pop("hostname", None)
    if extras.cgroupns:
        _use(spec, "cgroup", "")
        if extras.cgroupns == "private" and runtime.host.cgroup_namespaces:
            spec["linux"]["namespaces"].append({"type": "cgroup"})
    if extras.ipc == "none":
        _remove_mount(spec, _SHM)
    elif extras.ipc == "host":
        _use(spec, "ipc", "")
        _replace_mount(spec, _bind(_SHM, _SHM, "nosuid", "nodev", "noexec"))
        if runtime.host.namespaced:
            _remove_mount(spec, _MQUEUE)
    elif extras.ipc.startswith(JOINS):
        id = extras.ipc.removeprefix(JOINS)
        _use(spec, "ipc", _path_of(extras.ipc, "ipc", joined, root=root))
        memory = f"{directory}/shm"
        os.makedirs(memory, mode=0o700, exist_ok=True)
        joined.share_memory(root, id, memory)
        _replace_mount(spec, _bind(_SHM, memory, "nosuid", "nodev", "noexec"))


def _path_of(mode: str, kind: str, joined: Joined, *, root: str) -> str:
    return "" if mode == "host" else joined.namespace(root, mode.removeprefix(JOINS), kind)


def _use(spec: dict[str, Any], kind: str, path: str) -> None:
    """Instead of a new namespace the one at `path`, or the host's if that is empty."""
    linux = spec["linux"]
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != kind]
    if path:
        linux["namespaces"].append({"type": kind, "path": path})


def _bind(destination: str, source: str, *options: str) -> dict[str, object]:
    return {
        "destination": destination,
        "type": "bind",
        "source": source,
        "options": ["rbind", "rprivate", *options],
    }


def _insert(spec: dict[str, Any], mount: dict[str, object]) -> None:
    """Add a mount as the last, before the guard of the root, which closes the list."""
    mounts = spec["mounts"]
    at = len(mounts) - (bool(mounts) and mounts[-1]["destination"] == ROOT_GUARD)
    mounts.insert(at, mount)


def _replace_mount(spec: dict[str, Any], mount: dict[str, object]) -> None:
    """Put `mount` in the place of a default one; what the user mounted there stays."""
    for at, each in enumerate(spec["mounts"]):
        if each["destination"] == mount["destination"]:
            if each["type"] != "bind":
                spec["mounts"][at] = mount
            return
    _insert(spec, mount)


def _remove_mount(spec: dict[str, Any], destination: str) -> None:
    spec["mounts"] = [
        each
        for each in spec["mounts"]
        if each["destination"] != destination or each["type"] == "bind"
    ]
