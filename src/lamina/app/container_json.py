# SPDX-License-Identifier: Apache-2.0
"""A container as `docker inspect` shows it: Docker's field names, for what lamina knows."""

from __future__ import annotations

from lamina.app.containers import find
from lamina.app.places import place_json
from lamina.container.logs import NANOSECONDS, format_time
from lamina.container.restarts import parse_policy
from lamina.spec.config import healthcheck_to_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.app.containers import Container
    from lamina.container.extras import Extras
    from lamina.container.network.publish import PortMapping
    from lamina.container.ports import Mount
    from lamina.container.state import ContainerConfig, State
    from lamina.store.ports import Store

_NEVER = "0001-01-01T00:00:00Z"  # Go's zero time


def inspect(store: Store, text: str) -> dict[str, object]:
    """The container as `docker inspect` shows it (the fields lamina has values for)."""
    return container_json(find(store, text))


def container_json(container: Container) -> dict[str, object]:
    """The document; everything in it is JSON."""
    config, state = container.config, container.state()
    argv = config.process.argv
    health = container.health(state)
    return {
        "Id": container.id,
        "Created": _time(container.created),
        "Path": argv[0],
        "Args": list(argv[1:]),
        "State": _state(state, is_paused=container.is_paused)
        | ({"Health": health} if health is not None else {}),
        "Image": config.image_id,
        "ResolvConfPath": f"{container.directory}/resolv.conf",
        "HostnamePath": f"{container.directory}/hostname",
        "HostsPath": f"{container.directory}/hosts",
        "LogPath": container.log_path if config.log_driver != "none" else "",
        "Name": f"/{container.name}",
        "RestartCount": state.restart_count,
        "Driver": "overlay",
        "Platform": "linux",
        "HostConfig": _host_config(config),
        "Mounts": _mounts(container),
        "Config": _config(config),
        "NetworkSettings": _network(container, config, state),
    }


def _state(state: State, *, is_paused: bool) -> dict[str, object]:
    return {
        "Status": "paused" if is_paused else state.status,
        "Running": state.is_up,
        "Paused": is_paused,
        "Restarting": state.status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": False,
        "Pid": state.pid,
        "ExitCode": state.exit_status,
        "Error": state.error,
        "StartedAt": _time(state.started),
        "FinishedAt": _time(0 if state.is_running else state.finished),
        "Orphaned": state.orphaned,  # lamina's own: its monitor was killed
    }


def _config(config: ContainerConfig) -> dict[str, object]:
    process = config.process
    return {
        "Hostname": process.hostname,
        "Domainname": process.domainname,
        "User": process.user,
        "Tty": process.terminal,
        "AttachStdin": "stdin" in config.attach,
        "AttachStdout": "stdout" in config.attach,
        "AttachStderr": "stderr" in config.attach,
        "OpenStdin": config.stdin_open,
        "StdinOnce": config.stdin_once,
        "Env": [f"{name}={value}" for name, value in process.env],
        "Cmd": list(config.cmd) or None,
        "Entrypoint": list(config.entrypoint) or None,
        "Image": config.image,
        "WorkingDir": process.cwd,
        "Labels": dict(config.labels),
        "ExposedPorts": {port: {} for port in config.exposed},
        "Volumes": {path: {} for path in config.volumes} or None,
        "StopSignal": config.stop_signal,
        "StopTimeout": config.stop_timeout,
    } | _healthcheck(config)


def _healthcheck(config: ContainerConfig) -> dict[str, object]:
    if config.health is None:
        return {}
    return {"Healthcheck": healthcheck_to_json(config.health)}


def _host_config(config: ContainerConfig) -> dict[str, object]:
    process = config.process
    options = ["no-new-privileges"] if process.no_new_privileges else []
    if process.seccomp:
        options.append(f"seccomp={process.seccomp}")
    return {
        "Binds": [
            _bind(m) for m in process.mounts if m.flag == "-v" and "anonymous" not in m.options
        ]
        or None,
        "Mounts": _mount_requests(process.mounts),
        "Tmpfs": {m.destination: m.mode for m in process.mounts if m.flag == "--tmpfs"} or None,
        "VolumesFrom": list(config.volumes_from) or None,
        "NetworkMode": config.network,
        "PortBindings": _bindings(config.ports),
        "AutoRemove": config.auto_remove,
        "RestartPolicy": _restart_policy(config.restart),
        "LogConfig": {"Type": config.log_driver, "Config": _log_options(config)},
        "CapAdd": list(process.cap_add) or None,
        "CapDrop": list(process.cap_drop) or None,
        "Privileged": process.privileged,
        "ReadonlyRootfs": process.read_only,
        "SecurityOpt": options or None,
        "Dns": list(process.dns),
        "DnsSearch": list(process.dns_search),
        "DnsOptions": list(process.dns_options),
        "ExtraHosts": [f"{name}:{address}" for name, address in process.extra_hosts] or None,
        "Memory": process.memory,
        "MemorySwap": process.memory_swap,
        "CpuShares": process.cpu_shares,
        "CpusetCpus": process.cpuset_cpus,
        "CpusetMems": process.cpuset_mems,
        "NanoCpus": round(process.cpus * NANOSECONDS),
        "PidsLimit": process.pids_limit or None,
        "ShmSize": process.shm_size,
        "Ulimits": [
            {"Name": name, "Soft": soft, "Hard": hard} for name, soft, hard in process.ulimits
        ],
        "Sysctls": dict(process.sysctls) or None,
        **_extras(process.extras),
    }


_RATES = {  # of the runtime spec -> of Docker
    "throttleReadBpsDevice": "BlkioDeviceReadBps",
    "throttleWriteBpsDevice": "BlkioDeviceWriteBps",
    "throttleReadIOPSDevice": "BlkioDeviceReadIOps",
    "throttleWriteIOPSDevice": "BlkioDeviceWriteIOps",
    "weightDevice": "BlkioWeightDevice",
}


def _extras(extras: Extras | None) -> dict[str, object]:
    """What few containers have; the others have Docker's defaults."""
    if extras is None:
        return {
            "CgroupParent": "",
            "PidMode": "",
            "IpcMode": "private",
            "UTSMode": "",
            "CgroupnsMode": "private",
            "UsernsMode": "",
            "OomScoreAdj": 0,
            "Devices": [],
        }
    rates: dict[str, list[dict[str, object]]] = {name: [] for name in _RATES.values()}
    for rate in extras.device_rates:
        number = "Weight" if rate.kind == "weightDevice" else "Rate"
        rates[_RATES[rate.kind]].append({"Path": rate.path, number: rate.rate})
    return {
        "CpuPeriod": extras.cpu_period,
        "CpuQuota": extras.cpu_quota,
        "MemoryReservation": extras.memory_reservation,
        "MemorySwappiness": None if extras.memory_swappiness < 0 else extras.memory_swappiness,
        "OomKillDisable": extras.oom_kill_disable,
        "OomScoreAdj": extras.oom_score_adj,
        "BlkioWeight": extras.blkio_weight,
        "CgroupParent": extras.cgroup_parent,
        "PidMode": extras.pid,
        "IpcMode": extras.ipc or "private",
        "UTSMode": extras.uts,
        "UsernsMode": "",
        "CgroupnsMode": extras.cgroupns or "private",
        "Devices": [
            {
                "PathOnHost": device.source,
                "PathInContainer": device.target,
                "CgroupPermissions": device.access,
            }
            for device in extras.devices
        ],
        "DeviceCgroupRules": list(extras.device_rules) or None,
        "DeviceRequests": [{"Driver": "cdi", "DeviceIDs": list(extras.cdi)}] * bool(extras.cdi)
        or None,
        "Init": extras.init,
        "Annotations": dict(extras.annotations) or None,
        **rates,
    }


def _restart_policy(text: str) -> dict[str, object]:
    policy = parse_policy(text)
    return {"Name": policy.name, "MaximumRetryCount": policy.max_retries}


def _log_options(config: ContainerConfig) -> dict[str, str]:
    if not config.log_max_size:
        return {}
    return {"max-size": str(config.log_max_size), "max-file": str(config.log_max_file)}


def _bind(mount: Mount) -> str:
    mode = f":{mount.mode}" if mount.mode else ""
    return f"{mount.source}:{mount.destination}{mode}"


def _mount_requests(mounts: Sequence[Mount]) -> list[dict[str, object]] | None:
    """What `--mount` asked for, as Docker's API has it."""
    found: list[dict[str, object]] = []
    for mount in mounts:
        if mount.flag != "--mount":
            continue
        is_named = mount.type == "bind" or "anonymous" not in mount.options
        request: dict[str, object] = {"Type": mount.type, "Target": mount.destination}
        if mount.type != "tmpfs" and is_named:
            request["Source"] = mount.source
        if "ro" in mount.options:
            request["ReadOnly"] = True
        found.append(request)
    return found or None


def _mounts(container: Container) -> list[dict[str, object]]:
    """Docker's list of mounts, which has no `--tmpfs`."""
    from lamina.container.volumemounts import all_mounts

    found = []
    for mount in all_mounts(container.config, container.directory):
        if mount.flag == "--tmpfs":
            continue
        document: dict[str, object] = {"Type": mount.type}
        source, mode, propagation = "", mount.mode, ""
        if mount.type == "volume":
            document["Name"] = mount.source
            source = container.volume_path(mount.source)
            if mount.flag == "--mount" or (mount.flag and "anonymous" not in mount.options):
                mode = mode or "z"  # moby, daemon/volumes_unix.go: setBindModeIfNull
        elif mount.type == "bind":
            source = mount.source
            propagation = _propagation(mount)
        document |= {"Source": source, "Destination": mount.destination}
        if mount.type == "volume":
            document["Driver"] = "local"
        rw = "ro" not in mount.options
        found.append(document | {"Mode": mode, "RW": rw, "Propagation": propagation})
    return found


def _propagation(mount: Mount) -> str:
    known = ("shared", "rshared", "slave", "rslave", "private")
    return next((each for each in mount.options if each in known), "rprivate")


def _network(container: Container, config: ContainerConfig, state: State) -> dict[str, object]:
    ports: dict[str, object] = dict.fromkeys(config.exposed)
    ports.update(_bindings(state.ports if state.is_running else ()))
    found: dict[str, dict[str, object]] = {}
    for member in container.memberships():
        asked, place = member.endpoint, place_json(container.store, member)
        ipam = {"IPv4Address": asked.ip, "IPv6Address": asked.ip6}
        found[member.name] = {
            "IPAMConfig": {name: text for name, text in ipam.items() if text} or None,
            "Links": None,
            "Aliases": list(asked.aliases) or None,
            "DriverOpts": None,
            **place,
            "MacAddress": place["MacAddress"] or asked.mac,
            "DNSNames": [container.name, *asked.aliases, container.id[:12]],
        }
    of_default = found.get("bridge", {})
    return {
        "SandboxKey": f"/proc/{state.pid}/ns/net" if state.is_running else "",
        "Ports": ports,
        # what Docker had before there were several networks; lamina also tells of others there
        "IPAddress": state.ip_address if state.is_running else "",
        "IPPrefixLen": of_default.get("IPPrefixLen", 0),
        "Gateway": of_default.get("Gateway", ""),
        "MacAddress": of_default.get("MacAddress", ""),
        "Networks": found,
    }


def _bindings(ports: Sequence[PortMapping]) -> dict[str, object]:
    found: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        entry = {"HostIp": port.host_ip, "HostPort": str(port.host_port or "")}
        found.setdefault(f"{port.container_port}/{port.protocol}", []).append(entry)
    return dict(found)


def _time(seconds: float) -> str:
    return format_time(round(seconds * NANOSECONDS)) if seconds else _NEVER
