# SPDX-License-Identifier: Apache-2.0
"""The flags that few containers have, and their way into `Extras`, with the daemon's own checks.

Sources: docker/cli cli/command/container/opts.go; moby daemon/daemon_unix.go
(`verifyPlatformContainerResources`), whose words the errors are.
"""

from __future__ import annotations

import re

from lamina.cli.values import parse_size
from lamina.container.extras import JOINS, NO_SWAPPINESS, DeviceRate, DeviceRequest, Extras
from lamina.errors import Kind, LaminaError
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from typing import NoReturn

    from lamina.cli.security_flags import Security

MINIMUM = 6 << 20  # bytes; moby: linuxMinMemory
_RULE = re.compile(r"[acb] (\d+|\*):(\d+|\*) [rwm]{1,3}")
_CDI = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w-]*=[A-Za-z0-9][\w.:-]*")
_NVIDIA = "nvidia.com/gpu"
_RATES = (  # dest, flag, field of the runtime spec, whether the number is a size
    ("device_read_bps", "throttleReadBpsDevice", True),
    ("device_write_bps", "throttleWriteBpsDevice", True),
    ("device_read_iops", "throttleReadIOPSDevice", False),
    ("device_write_iops", "throttleWriteIOPSDevice", False),
    ("blkio_weight_device", "weightDevice", False),
)


def parse_extras(args: argparse.Namespace, security: Security) -> Extras:
    """What the flags ask for. Raises LaminaError of kind USAGE or UNSUPPORTED."""
    devices, cdi = _devices(args.device)
    _modes(args)
    found = replace(
        limits_of(args),
        device_rates=tuple(_rates(args)),
        cgroup_parent=_cgroup_parent(args.cgroup_parent),
        pid=args.pid,
        ipc=args.ipc,
        uts=args.uts,
        cgroupns=args.cgroupns,
        devices=devices,
        device_rules=tuple(_rule(text) for text in args.device_cgroup_rule),
        cdi=(*cdi, *(_gpus(args.gpus) if args.gpus else ())),
        init=args.init,
        annotations=tuple(_annotation(text) for text in args.annotation),
        bare_system_paths=security.bare_system_paths,
        apparmor=security.apparmor,
    )
    _check_together(args)
    return found


def limits_of(args: argparse.Namespace) -> Extras:
    """The limits among them, which `update` can change too. Raises LaminaError of kind USAGE."""
    found = Extras(
        cpu_period=_number(args.cpu_period, "--cpu-period"),
        cpu_quota=_number(args.cpu_quota, "--cpu-quota"),
        memory_reservation=_bytes(args.memory_reservation, "--memory-reservation"),
        memory_swappiness=_number(
            args.memory_swappiness, "--memory-swappiness", default=NO_SWAPPINESS
        ),
        oom_kill_disable=bool(args.oom_kill_disable),
        oom_score_adj=_number(args.oom_score_adj, "--oom-score-adj"),
        blkio_weight=_number(args.blkio_weight, "--blkio-weight"),
    )
    if 0 < found.memory_reservation < MINIMUM:
        _fail("Minimum memory reservation allowed is 6MB")
    if not -1 <= found.memory_swappiness <= 100:
        _fail(f"invalid value: {found.memory_swappiness}, valid memory swappiness range is 0-100")
    if found.cpu_period and not 1000 <= found.cpu_period <= 1_000_000:
        _fail(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    if 0 < found.cpu_quota < 1000:
        _fail("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if found.blkio_weight and not 10 <= found.blkio_weight <= 1000:
        _fail("Range of blkio weight is from 10 to 1000")
    if not -1000 <= found.oom_score_adj <= 1000:
        _fail(f"Invalid value {found.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    return found


def parse_swap(text: str, *, memory: int) -> int:
    """Bytes of memory and swap together, -1 for no limit. Raises LaminaError of kind USAGE."""
    swap = -1 if text == "-1" else parse_size(text, "--memory-swap")
    if swap > 0 and not memory:
        _fail("You should always set the Memory limit when using Memoryswap limit, see usage")
    if 0 < swap < memory:
        _fail("Minimum memoryswap limit should be larger than memory limit, see usage")
    return swap


def _check_together(args: argparse.Namespace) -> None:
    memory = _bytes(args.memory, "--memory")
    if 0 < memory < _bytes(args.memory_reservation, "--memory-reservation"):
        _fail("Minimum memory limit can not be less than memory reservation limit, see usage")
    for flag, what in ((args.cpu_period, "Period"), (args.cpu_quota, "Quota")):
        if args.cpus and flag:
            _fail(f"Conflicting options: Nano CPUs and CPU {what} cannot both be set")
    if args.uts == "host" and args.hostname:
        _fail("conflicting options: hostname and the UTS mode")


def _modes(args: argparse.Namespace) -> None:
    """Check the modes of namespaces; whether a named container is there is asked later."""
    for value, known, error in (
        (args.pid, ("host", JOINS), "--pid: invalid PID mode"),
        (
            args.ipc,
            ("host", "private", "shareable", "none", JOINS),
            f"invalid IPC mode: {args.ipc}",
        ),
        (args.uts, ("host",), "--uts: invalid UTS mode"),
        (args.userns, ("host",), "--userns: invalid USER mode"),
        (args.cgroupns, ("host", "private"), "--cgroupns: invalid CGROUP mode"),
    ):
        joins = JOINS in known and value.startswith(JOINS) and value != JOINS
        if value and not joins and (value not in known or value == JOINS):
            _fail(error)


def _devices(texts: Sequence[str]) -> tuple[tuple[DeviceRequest, ...], tuple[str, ...]]:
    """(devices by path, names of CDI)."""
    cdi = tuple(text for text in texts if _CDI.fullmatch(text))
    return tuple(_device(text) for text in texts if text not in cdi), cdi


def _device(text: str) -> DeviceRequest:
    """`/HOST[:/CONTAINER][:rwm]` (docker/cli: validateDevice, parseDevice)."""
    parts = text.split(":")
    source, target, access = parts[0], parts[0], "rwm"
    if len(parts) == 3:
        target, access = parts[1:]
    elif len(parts) == 2 and _is_access(parts[1]):
        access = parts[1]
    elif len(parts) == 2:
        target = parts[1]
    elif len(parts) > 3:
        _fail(f"invalid device specification: {text}")
    if not _is_access(access):
        _fail(f"bad mode specified: {access}")
    for path in (source, target or source):
        if not path.startswith("/"):
            _fail(f"{path or text} is not an absolute path")
    return DeviceRequest(source, target or source, access)


def _is_access(text: str) -> bool:
    return bool(text) and set(text) <= set("rwm") and len(set(text)) == len(text)


def _rule(text: str) -> str:
    if not _RULE.fullmatch(text):
        _fail(f"invalid device cgroup format '{text}'")
    return text


def _gpus(text: str) -> tuple[str, ...]:
    """The CDI names that `--gpus` means (docker/cli opts/gpus.go).

    What is asked for by capability is all that a driver's CDI file describes.
    """
    ids: list[str] = []
    count = ""
    for part in re.split(r",(?=\w+=)", text.strip('"')) if "=" in text else [text]:
        name, equals, value = part.strip('"').partition("=")
        match name:
            case "device":
                ids = value.split(",")
            case "count":
                count = value
            case "driver" if value in {"nvidia", "cdi"}:
                pass
            case "capabilities" if "gpu" in value.split(","):
                pass
            case _ if not equals:
                count = name
            case _:
                raise LaminaError(f"--gpus {part} is not supported", kind=Kind.UNSUPPORTED)
    if ids and count:
        _fail("cannot set both Count and DeviceIDs on device request")
    if ids:
        return tuple(f"{_NVIDIA}={id}" for id in ids)
    if count in {"all", "-1", ""}:
        return (f"{_NVIDIA}=all",)
    return tuple(f"{_NVIDIA}={number}" for number in range(_number(count, "--gpus")))


def _rates(args: argparse.Namespace) -> Iterator[DeviceRate]:
    for dest, kind, is_size in _RATES:
        flag = "--" + dest.replace("_", "-")
        for text in getattr(args, dest):
            path, colon, value = text.partition(":")
            if not colon or not value:
                _fail(f"bad format: {text}")
            if not path.startswith("/dev/"):
                _fail(f"bad format for device path: {text}")
            number = parse_size(value, flag) if is_size else _number(value, flag)
            if number < 0 or (kind == "weightDevice" and number and not 10 <= number <= 1000):
                _fail(f"invalid rate for device: {text}")
            yield DeviceRate(kind, path, number)


def _cgroup_parent(text: str) -> str:
    if ".." in text.split("/") or "\0" in text or "\n" in text:
        _fail(f"invalid cgroup parent: {text}")
    return "/".join(part for part in text.split("/") if part not in {"", "."})


def _annotation(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        _fail(f"invalid argument {text!r} for '--annotation' flag: expected KEY=VALUE")
    return name, value


def _number(text: str, flag: str, *, default: int = 0) -> int:
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        _fail(f'invalid argument "{text}" for "{flag}" flag: not a whole number')


def _bytes(text: str, flag: str) -> int:
    return parse_size(text, flag) if text else 0


def _fail(message: str) -> NoReturn:
    raise LaminaError(message, kind=Kind.USAGE)
