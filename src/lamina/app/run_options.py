# SPDX-License-Identifier: Apache-2.0
"""What `run` can be asked for, and how it meets the image's defaults (moby's `runconfig` rules)."""

from __future__ import annotations

import posixpath

from lamina.container.network.publish import PortMapping
from lamina.container.ports import Mount, ProcessSpec
from lamina.container.state import ContainerConfig
from lamina.errors import Kind, LaminaError
from lamina.spec.config import Healthcheck
from lamina.start.record import Record, fields, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamina.container.extras import Extras
    from lamina.spec.config import RunConfig

DEFAULT_SHM_SIZE = 64 << 20  # moby, daemon/config: DefaultShmSize


class NetworkRequest(Record):
    """A network that a container is to be in, by name or id, and what it asks for there; texts."""

    name: str
    aliases: tuple[str, ...] = ()
    ip: str = ""
    ip6: str = ""
    mac: str = ""


class RunOptions(Record):
    """One `run` or `create`. Fields are Docker's flags; None or empty means the image's default.

    `entrypoint` `("",)` resets the image's. `env` later settings win. `memory` and `shm_size` in
    bytes, `stop_timeout` in seconds. `attach` are the streams of `-a` (stdin, stdout, stderr), None for
    the usual ones: when the client that has stdin goes, the container's input ends.
    `expose` are `8000/tcp` texts, `sysctls` and `labels` pairs. `network` is
    bridge, host, none, `container:NAME`, or the first of `networks`, which the default network need not be in.
    `mounts` may be of type `volume` (`container.volumemounts`), without a source for an anonymous
    one. `volumes_from` are `CONTAINER[:ro]` texts.
    """

    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    name: str = ""
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    hostname: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    volumes_from: tuple[str, ...] = ()
    network: str = "bridge"
    networks: tuple[NetworkRequest, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    expose: tuple[str, ...] = ()
    publish_all: bool = False
    extra_hosts: tuple[tuple[str, str], ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    domainname: str = ""
    interactive: bool = False
    attach: tuple[str, ...] | None = None
    terminal: bool = False
    auto_remove: bool = False
    privileged: bool = False
    no_new_privileges: bool = False
    seccomp: str = ""
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    read_only: bool = False
    memory: int = 0
    memory_swap: int = 0
    cpus: float = 0.0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    extras: Extras | None = None
    pids_limit: int = 0
    ulimits: tuple[tuple[str, int, int], ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    shm_size: int = DEFAULT_SHM_SIZE
    stop_signal: str = ""
    stop_timeout: int = 10
    log_driver: str = "json-file"
    log_max_size: int = 0
    log_max_file: int = 1
    restart: str = "no"
    health: Healthcheck | None = None


class Origin(Record):
    """The image a container is made from: the user's text, the config digest, the top chainID."""

    image: str
    image_id: str
    chain: str


def configure(
    options: RunOptions,
    image: RunConfig,
    *,
    origin: Origin,
    id: str,
    host_name: str,
    inherited: Sequence[Mount] = (),
) -> ContainerConfig:
    """The container's configuration: the options, and the image's defaults where they are silent.

    `host_name` is the host's own, used with the host's network. `inherited` are the mounts of
    `volumes_from`.

    Raises LaminaError of kind USAGE if nothing is left to run or the options contradict.
    """
    from lamina.container.instance import signal_number

    entrypoint, cmd = _command(options, image)
    stop_signal = options.stop_signal or image.stop_signal or "SIGTERM"
    signal_number(stop_signal)
    mounts, volumes = combine(options.mounts, image.volumes, inherited)
    exposed = _exposed(options, image)
    labels = {**dict(image.labels), **dict(options.labels)}
    attach = options.attach
    if attach is None:
        attach = ("stdin", "stdout", "stderr") if options.interactive else ("stdout", "stderr")
    shares_name = options.network == "host" or (
        options.extras is not None and options.extras.uts == "host"
    )
    default_hostname = host_name if shares_name else id[:12]
    return ContainerConfig(
        image=origin.image,
        image_id=origin.image_id,
        chain=origin.chain,
        process=_process(
            options,
            image,
            argv=entrypoint + cmd,
            mounts=mounts,
            hostname=options.hostname or default_hostname,
        ),
        entrypoint=entrypoint,
        cmd=cmd,
        labels=tuple(sorted(labels.items())),
        network=options.network,
        ports=_ports(options, exposed),
        exposed=exposed,
        volumes=volumes,
        volumes_from=options.volumes_from,
        stdin_open=options.interactive,
        stdin_once=options.interactive and "stdin" in attach,
        attach=attach,
        auto_remove=options.auto_remove,
        stop_signal=stop_signal,
        stop_timeout=options.stop_timeout,
        log_driver=options.log_driver,
        log_max_size=options.log_max_size,
        log_max_file=options.log_max_file,
        restart=_restart(options),
        health=_health(options.health, image.healthcheck),
    )


def _health(asked: Healthcheck | None, image: Healthcheck | None) -> Healthcheck | None:
    """What was asked for, and of the image's check what was not."""
    if asked is None or image is None or asked.test[:1] == ("NONE",):
        return asked or image
    return replace(
        image, **{name: value for name in fields(Healthcheck) if (value := getattr(asked, name))}
    )


def _restart(options: RunOptions) -> str:
    if options.restart == "no":
        return "no"
    from lamina.container.restarts import parse_policy

    policy = parse_policy(options.restart)
    if options.auto_remove and policy.name != "no":
        raise LaminaError(
            "conflicting options: cannot specify both --restart and --rm", kind=Kind.USAGE
        )
    return str(policy)


def _process(
    options: RunOptions,
    image: RunConfig,
    *,
    argv: tuple[str, ...],
    mounts: tuple[Mount, ...],
    hostname: str,
) -> ProcessSpec:
    return ProcessSpec(
        argv=argv,
        env=tuple({**dict(image.env), **dict(options.env)}.items()),
        cwd="/" + posixpath.normpath(options.working_dir or image.working_dir or "/").lstrip("/"),
        user=options.user or image.user,
        groups=options.groups,
        hostname=hostname,
        terminal=options.terminal,
        host_network=options.network == "host",
        privileged=options.privileged,
        no_new_privileges=options.no_new_privileges,
        seccomp=options.seccomp,
        cap_add=options.cap_add,
        cap_drop=options.cap_drop,
        read_only=options.read_only,
        shm_size=options.shm_size,
        extra_hosts=options.extra_hosts,
        dns=options.dns,
        dns_search=options.dns_search,
        dns_options=options.dns_options,
        domainname=options.domainname,
        mounts=mounts,
        memory=options.memory,
        memory_swap=options.memory_swap,
        cpus=options.cpus,
        cpu_shares=options.cpu_shares,
        cpuset_cpus=options.cpuset_cpus,
        cpuset_mems=options.cpuset_mems,
        extras=options.extras,
        pids_limit=options.pids_limit,
        ulimits=options.ulimits,
        sysctls=_sysctls(options),
    )


def _sysctls(options: RunOptions) -> tuple[tuple[str, str], ...]:
    """The domain name is one, as in Docker (moby, oci_linux.go)."""
    if not options.domainname:
        return options.sysctls
    return (("kernel.domainname", options.domainname), *options.sysctls)


def _command(options: RunOptions, image: RunConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(entrypoint, cmd). An entrypoint of one's own drops the image's cmd (moby, merge.go)."""
    if options.entrypoint is None:
        entrypoint = image.entrypoint or ()
        cmd = options.command or image.cmd or ()
    else:
        entrypoint = () if options.entrypoint == ("",) else options.entrypoint
        cmd = options.command
    if not entrypoint and not cmd:
        raise LaminaError(
            "no command specified",
            kind=Kind.USAGE,
            hint="the image has neither ENTRYPOINT nor CMD: give a command after the image",
        )
    return entrypoint, cmd


def _exposed(options: RunOptions, image: RunConfig) -> tuple[str, ...]:
    ports = {_exposed_port(text) for text in (*image.exposed_ports, *options.expose)}
    ports.update(f"{port.container_port}/{port.protocol}" for port in options.ports)
    return tuple(sorted(ports, key=lambda text: (int(text.partition("/")[0]), text)))


def _exposed_port(text: str) -> str:
    port, _, protocol = text.partition("/")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise LaminaError(f"invalid port to expose: {text!r}", kind=Kind.USAGE)
    return f"{int(port)}/{(protocol or 'tcp').lower()}"


def _ports(options: RunOptions, exposed: Sequence[str]) -> tuple[PortMapping, ...]:
    """What to publish; nothing without a network of its own, as Docker does."""
    if options.network in {"host", "none"} or options.network.startswith("container:"):
        return ()
    ports = list(options.ports)
    if options.publish_all:
        taken = {(port.container_port, port.protocol) for port in ports}
        for text in exposed:
            number, _, protocol = text.partition("/")
            if (int(number), protocol) not in taken:
                ports.append(PortMapping(int(number), protocol))
    return tuple(ports)


def named_by_id(
    options: RunOptions, find: Callable[[str], tuple[str, ContainerConfig]]
) -> RunOptions:
    """The options with containers whose namespaces are to be shared named by their full ids.

    `find` gives the (id, configuration) of a container by what the user calls it.

    Raises LaminaError: as `find`; CONFLICT if one does not share its IPC namespace.
    """
    extras = options.extras
    if extras is None or not (extras.pid or extras.ipc):
        return options
    from lamina.container.extras import JOINS

    pid, ipc = extras.pid, extras.ipc
    if pid.startswith(JOINS):
        pid = JOINS + find(pid.removeprefix(JOINS))[0]
    if ipc.startswith(JOINS):
        id, donor = find(ipc.removeprefix(JOINS))
        if donor.process.extras is None or donor.process.extras.ipc != "shareable":
            raise LaminaError(
                "non-shareable IPC (hint: use IpcMode:shareable for the donor container): "
                f"container {id}",
                kind=Kind.CONFLICT,
            )
        ipc = JOINS + id
    return replace(options, extras=replace(extras, pid=pid, ipc=ipc))


def combine(
    requests: Sequence[Mount], image_volumes: Sequence[str], inherited: Sequence[Mount] = ()
) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
    """(mounts, destinations that the image or `-v` without a source wants volumes at).

    A request takes the place of what is inherited; a wanted volume gives way to both. Anonymous
    volumes have no source yet. Raises LaminaError of kind USAGE if two requests share a destination.
    """
    wanted = {m.destination: m for m in requests if m.flag == "-v" and not m.source}
    for path in image_volumes:
        destination = "/" + posixpath.normpath(f"/{path}").lstrip("/")
        if destination != "/":
            wanted.setdefault(destination, Mount(destination, "volume"))
    asked: dict[str, Mount] = {}
    for mount in requests:
        if mount.flag == "-v" and not mount.source:
            continue
        if mount.destination in asked:
            raise LaminaError(f"Duplicate mount point: {mount.destination}", kind=Kind.USAGE)
        asked[mount.destination] = mount
    chosen = {**wanted, **{m.destination: m for m in inherited}, **asked}
    return tuple(chosen.values()), tuple(wanted)
