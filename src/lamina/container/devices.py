# SPDX-License-Identifier: Apache-2.0
"""Devices of the host that a container was given, in its runtime spec."""

from __future__ import annotations

import os
import stat

from lamina.container.host import list_devices
from lamina.container.spec import Device, checked_path, node_of
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from lamina.container.extras import DeviceRequest
    from lamina.container.spec import HostFacts


def add_devices(spec: dict[str, Any], requests: Sequence[DeviceRequest], host: HostFacts) -> None:
    """Add the nodes, and the right to use them; a directory stands for all in it.

    In a user namespace no node can be made: the host's own are bound.

    Raises LaminaError: NOT_FOUND, USAGE, UNSUPPORTED for a right that nothing would withhold.
    """
    if host.namespaced:
        _bind_devices(spec, requests)
        return
    linux = spec["linux"]
    nodes = linux.setdefault("devices", [])
    taken = {node["path"] for node in nodes}
    for request in requests:
        for device in _devices(request):
            if device.path not in taken:
                taken.add(device.path)
                nodes.append(node_of(device))
            if host.device_control:
                linux["resources"]["devices"].append(
                    {
                        "allow": True,
                        "type": device.type,
                        "major": device.major,
                        "minor": device.minor,
                        "access": request.access,
                    }
                )


def _bind_devices(spec: dict[str, Any], requests: Sequence[DeviceRequest]) -> None:
    for request in requests:
        if not {"r", "w"} <= set(request.access):
            raise LaminaError(
                f"--device {request.source}:{request.target}:{request.access} cannot be enforced: "
                "without root no control group guards devices",
                kind=Kind.UNSUPPORTED,
            )
        source = os.path.realpath(request.source)
        if _devices(request):  # it is one, or a directory of some
            mount = {
                "destination": request.target,
                "type": "bind",
                "source": source,
                "options": ["rbind", "rprivate", "nosuid", "noexec"],
            }
            spec["mounts"].insert(len(spec["mounts"]) - 1, mount)  # before the root's guard


def add_rules(linux: dict[str, Any], rules: Sequence[str], host: HostFacts) -> None:
    """Add `--device-cgroup-rule`s. Raises LaminaError of kind UNSUPPORTED where none can hold."""
    if rules and not host.device_control:
        raise LaminaError(
            "--device-cgroup-rule cannot be enforced: no control group of devices can be used",
            kind=Kind.UNSUPPORTED,
            hint="'lamina info' tells what was found on this host",
        )
    for rule in rules:
        kind, numbers, access = rule.split(" ")
        document: dict[str, object] = {"allow": True, "type": kind, "access": access}
        for name, number in zip(("major", "minor"), numbers.split(":"), strict=True):
            if number != "*":
                document[name] = int(number)
        linux["resources"]["devices"].append(document)


def _devices(request: DeviceRequest) -> list[Device]:
    """The devices at the path (links followed), as the container is to see them."""
    source = os.path.realpath(request.source)
    target = checked_path(request.target, what="device path")
    try:
        status = os.stat(source)
    except OSError as error:
        raise LaminaError(
            f'error gathering device information while adding custom device "{request.source}": '
            f"{(error.strerror or '').lower()}",
            kind=Kind.NOT_FOUND,
        ) from error
    if stat.S_ISDIR(status.st_mode):
        return list(list_devices(source, target))
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise LaminaError(
            f'error gathering device information while adding custom device "{request.source}": '
            "not a device node",
            kind=Kind.USAGE,
        )
    return [
        Device(
            path=target,
            type="c" if stat.S_ISCHR(status.st_mode) else "b",
            major=os.major(status.st_rdev),
            minor=os.minor(status.st_rdev),
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
        )
    ]
