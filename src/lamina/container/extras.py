# SPDX-License-Identifier: Apache-2.0
"""What few containers ask for beyond `ProcessSpec`: finer limits, shared namespaces, devices.

A process has `extras` only if one of these was asked for, so that others load none of this.
"""

from __future__ import annotations

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INIT_PATH = "/sbin/docker-init"  # where Docker shows the init of `--init` in a container
NO_SWAPPINESS = -1
JOINS = "container:"  # the beginning of a mode that names a container


class DeviceRequest(Record):
    """One `--device`: a path of the host, where it appears, and `r`, `w`, `m` in some order."""

    source: str
    target: str
    access: str = "rwm"


class DeviceRate(Record):
    """A limit of a block device: `kind` is a field of the runtime spec's `linux.resources.blockIO`
    (`throttleReadBpsDevice`..., `weightDevice`), `rate` bytes or operations a second, or a weight.
    """

    kind: str
    path: str
    rate: int


class Extras(Record):
    """Docker's `HostConfig`, as far as `ProcessSpec` has not got it.

    `memory_reservation` in bytes, `cpu_period` and `cpu_quota` in microseconds.
    `pid`, `ipc` and the others are Docker's modes; one that joins names a container by its full
    id. `label` is an SELinux label, `apparmor` a profile. `cdi` are names as `vendor/class=name`.
    """

    cpu_period: int = 0
    cpu_quota: int = 0
    memory_reservation: int = 0
    memory_swappiness: int = NO_SWAPPINESS
    oom_kill_disable: bool = False
    oom_score_adj: int = 0
    blkio_weight: int = 0
    device_rates: tuple[DeviceRate, ...] = ()
    cgroup_parent: str = ""
    pid: str = ""
    ipc: str = ""
    uts: str = ""
    cgroupns: str = ""
    devices: tuple[DeviceRequest, ...] = ()
    device_rules: tuple[str, ...] = ()
    cdi: tuple[str, ...] = ()
    init: bool = False
    annotations: tuple[tuple[str, str], ...] = ()
    bare_system_paths: bool = False
    apparmor: str = ""

    @staticmethod
    def parse(document: dict[str, Any]) -> Extras:
        """From the JSON of a stored configuration, tuples in place of arrays.

        Raises TypeError or ValueError.
        """
        fields = dict(document)
        devices = tuple(DeviceRequest(**each) for each in fields.pop("devices", ()))
        rates = tuple(DeviceRate(**each) for each in fields.pop("device_rates", ()))
        return Extras(devices=devices, device_rates=rates, **fields)
