# SPDX-License-Identifier: Apache-2.0
"""The finer limits: the runtime spec's resources of them, and whether this host can enforce them."""

from __future__ import annotations

import os
import stat

from lamina.container.extras import NO_SWAPPINESS
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from lamina.container.extras import Extras
    from lamina.container.ports import ProcessSpec

_ROOT = "/sys/fs/cgroup"
_IO = {"v1": "blkio", "hybrid": "blkio", "v2": "io"}  # what the controller of disks is called
# flag -> (controller of v1, its files, of which one must be there), and whether v2 has such a limit
_FILES = {
    "--memory-swap": ("memory", ("memory.memsw.limit_in_bytes",), True),
    "--memory-reservation": ("memory", ("memory.soft_limit_in_bytes",), True),
    "--memory-swappiness": ("memory", ("memory.swappiness",), False),
    "--oom-kill-disable": ("memory", ("memory.oom_control",), False),
    "--cpu-quota": ("cpu", ("cpu.cfs_quota_us",), True),
    "--cpu-period": ("cpu", ("cpu.cfs_period_us",), True),
    "--blkio-weight": ("blkio", ("blkio.weight", "blkio.bfq.weight"), True),
    "--blkio-weight-device": ("blkio", ("blkio.weight_device", "blkio.bfq.weight_device"), True),
    "--device-read-bps": ("blkio", ("blkio.throttle.read_bps_device",), True),
    "--device-write-bps": ("blkio", ("blkio.throttle.write_bps_device",), True),
    "--device-read-iops": ("blkio", ("blkio.throttle.read_iops_device",), True),
    "--device-write-iops": ("blkio", ("blkio.throttle.write_iops_device",), True),
}
_RATE_FLAGS = {
    "throttleReadBpsDevice": "--device-read-bps",
    "throttleWriteBpsDevice": "--device-write-bps",
    "throttleReadIOPSDevice": "--device-read-iops",
    "throttleWriteIOPSDevice": "--device-write-iops",
    "weightDevice": "--blkio-weight-device",
}


def flags_of(process: ProcessSpec) -> Iterator[str]:
    """The flags of the limits that were asked for."""
    if process.memory_swap:
        yield "--memory-swap"
    extras = process.extras
    if extras is None:
        return
    if extras.memory_reservation:
        yield "--memory-reservation"
    if extras.memory_swappiness != NO_SWAPPINESS:
        yield "--memory-swappiness"
    if extras.oom_kill_disable:
        yield "--oom-kill-disable"
    if extras.cpu_period:
        yield "--cpu-period"
    if extras.cpu_quota:
        yield "--cpu-quota"
    if extras.blkio_weight:
        yield "--blkio-weight"
    yield from (_RATE_FLAGS[rate.kind] for rate in extras.device_rates)


def wanted_of(process: ProcessSpec, mode: str) -> list[tuple[str, str, bool]]:
    """(controller, flag, True) of each limit, by its name in control groups of this mode."""
    found = []
    for flag in flags_of(process):
        controller = _FILES[flag][0]
        found.append((_IO.get(mode, "io") if controller == "blkio" else controller, flag, True))
    return found


def check_offered(process: ProcessSpec, mode: str, *, root: str = _ROOT) -> None:
    """Refuse a limit that this kernel's control groups, of `mode`, have no file for.

    Raises LaminaError of kind UNSUPPORTED, naming the flag and the file.
    """
    for flag in flags_of(process):
        controller, files, is_in_v2 = _FILES[flag]
        if mode == "v2":
            offered, what = is_in_v2, f"control groups v2 have no {files[0]}"
        else:
            offered = any(os.path.exists(f"{root}/{controller}/{file}") for file in files)
            what = f"this kernel's {controller} control group has no {' or '.join(files)}"
        if not offered:
            raise LaminaError(f"{flag} cannot be enforced: {what}", kind=Kind.UNSUPPORTED)


def add_resources(resources: dict[str, Any], extras: Extras) -> None:
    """Add the limits to `linux.resources`.

    Raises LaminaError of kind NOT_FOUND or USAGE for a path that is no block device.
    """
    memory: dict[str, object] = resources.setdefault("memory", {})
    if extras.memory_reservation:
        memory["reservation"] = extras.memory_reservation
    if extras.memory_swappiness != NO_SWAPPINESS:
        memory["swappiness"] = extras.memory_swappiness
    if extras.oom_kill_disable:
        memory["disableOOMKiller"] = True
    cpu: dict[str, object] = resources.setdefault("cpu", {})
    if extras.cpu_period:
        cpu["period"] = extras.cpu_period
    if extras.cpu_quota:
        cpu["quota"] = extras.cpu_quota
    io: dict[str, Any] = {"weight": extras.blkio_weight} if extras.blkio_weight else {}
    for rate in extras.device_rates:
        number = _block_device(rate.path)
        value = "weight" if rate.kind == "weightDevice" else "rate"
        entry = {"major": os.major(number), "minor": os.minor(number), value: rate.rate}
        io.setdefault(rate.kind, []).append(entry)
    resources["blockIO"] = io
    for name in ("memory", "cpu", "blockIO"):
        if not resources[name]:
            del resources[name]


def _block_device(path: str) -> int:
    try:
        status = os.stat(path)
    except OSError as error:
        raise LaminaError(f"no such device: {path}", kind=Kind.NOT_FOUND) from error
    if not stat.S_ISBLK(status.st_mode):
        raise LaminaError(f"{path} is not a block device", kind=Kind.USAGE)
    return status.st_rdev
