# SPDX-License-Identifier: Apache-2.0
"""The flags of `run`, as Docker spells them, and their way into `RunOptions`."""

from __future__ import annotations

import os

from lamina.app.run_options import DEFAULT_SHM_SIZE, RunOptions
from lamina.container.network.publish import parse_publish
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from lamina.app.run_options import NetworkRequest
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context
    from lamina.container.extras import Extras
    from lamina.container.ports import Mount
    from lamina.spec.config import Healthcheck

_DAEMON = "lamina has no daemon that could do it"
_LATER = "lamina does not have it yet"
_WINDOWS = "it is for containers of Windows"

# Those that `update` takes, too.
LIMITS = (
    (("-m", "--memory"), "memory limit, as 512m"),
    (("--memory-reservation",), "memory it keeps when the host runs short"),
    (("--memory-swap",), "limit of memory and swap together, -1 for none"),
    (("--memory-swappiness",), "0 to 100 (control groups v1)"),
    (("--cpus",), "number of CPUs, as 1.5"),
    (("-c", "--cpu-shares"), "share of the CPUs when all are busy, 1024 is usual"),
    (("--cpu-period",), "length of the period of --cpu-quota in microseconds"),
    (("--cpu-quota",), "microseconds of CPU in each period"),
    (("--cpuset-cpus",), "CPUs it may use, as 0-2,4"),
    (("--cpuset-mems",), "memory nodes it may use"),
    (("--blkio-weight",), "share of disks, 10 to 1000"),
    (("--oom-score-adj",), "-1000 to 1000: who is killed first for lack of memory"),
)
DEVICE_LIMITS = (
    ("--device-read-bps", "bytes read a second"),
    ("--device-write-bps", "bytes written a second"),
    ("--device-read-iops", "reads a second"),
    ("--device-write-iops", "writes a second"),
    ("--blkio-weight-device", "share"),
)
# What makes a container need `Extras`, by the names of its arguments.
_EXTRAS = (
    *("memory_reservation", "memory_swappiness", "cpu_period", "cpu_quota", "blkio_weight"),
    *("oom_score_adj", "oom_kill_disable", "device_read_bps", "device_write_bps"),
    *("device_read_iops", "device_write_iops", "blkio_weight_device", "cgroup_parent"),
    *("pid", "ipc", "uts", "userns", "cgroupns", "device", "device_cgroup_rule", "gpus"),
    *("init", "annotation", "security_opt"),
)


def add_run_flags(parser: Parser) -> None:
    """Everything `docker run` takes, apart from what only `run` itself needs."""
    _add_identity(parser)
    _add_process(parser)
    _add_network(parser)
    _add_storage(parser)
    _add_security(parser)
    _add_limits(parser)
    _add_health(parser)
    _add_refused(parser)


def _many(parser: Parser, *names: str, help: str, metavar: str = "VALUE") -> None:
    parser.add_argument(*names, action="append", default=[], help=help, metavar=metavar)


def _add_identity(parser: Parser) -> None:
    parser.add_argument("--name", default="", help="name of the container")
    parser.add_argument("--cidfile", default="", help="write the container's id to this new file")
    _many(parser, "-l", "--label", help="label, KEY=VALUE", metavar="LABEL")
    _many(parser, "--label-file", help="read labels from a file", metavar="FILE")
    parser.switch("--rm", help="remove the container when it has ended")
    parser.add_argument(
        "--restart", default="no", help="no, always, unless-stopped or on-failure[:N]"
    )
    parser.add_argument(
        "--pull", default="missing", choices=("never", "missing", "always"), help="when to pull"
    )
    parser.add_argument("--platform", default="", help="platform of the image: os/arch[/variant]")
    parser.add_argument("--runtime", default="", help="OCI runtime: a name or a path")
    parser.add_argument("--log-driver", default="json-file", help="json-file, local or none")
    _many(parser, "--log-opt", help="max-size=10m or max-file=3", metavar="OPTION")
    _many(parser, "--annotation", help="annotation for the OCI runtime, KEY=VALUE")


def _add_process(parser: Parser) -> None:
    _many(parser, "-e", "--env", help="environment variable: NAME=VALUE or NAME", metavar="ENV")
    _many(parser, "--env-file", help="read environment variables from a file", metavar="FILE")
    parser.add_argument("-w", "--workdir", default="", help="working directory")
    parser.add_argument("-u", "--user", default="", help="NAME|UID[:GROUP|GID]")
    _many(parser, "--group-add", help="supplementary group", metavar="GROUP")
    parser.add_argument("--entrypoint", default=None, help="replaces the image's entrypoint")
    parser.switch("-i", "--interactive", help="keep standard input open")
    parser.switch("-t", "--tty", help="give it a terminal")
    _many(parser, "-a", "--attach", help="stdin, stdout or stderr, and no other", metavar="STREAM")
    parser.switch("--init", help="an init inside that forwards signals and reaps processes")
    parser.add_argument("--stop-signal", default="", help="signal that stops it")
    parser.add_argument("--stop-timeout", default="", help="seconds before SIGKILL follows")


def _add_network(parser: Parser) -> None:
    help = "a network, bridge, host, none, or container:NAME"
    _many(parser, "--network", "--net", help=help, metavar="NETWORK")
    _many(parser, "--network-alias", "--net-alias", help="a further name there", metavar="ALIAS")
    parser.add_argument("--ip", default="", help="its IPv4 address there")
    parser.add_argument("--ip6", default="", help="its IPv6 address there")
    parser.add_argument("--mac-address", default="", help="its MAC address there")
    _many(parser, "-p", "--publish", help="publish a port: [IP:][HOST:]CONTAINER", metavar="PORT")
    parser.switch("-P", "--publish-all", help="publish every exposed port on a free one")
    _many(parser, "--expose", help="a port that -P publishes", metavar="PORT")
    parser.add_argument("-h", "--hostname", default="", help="host name inside")
    _many(parser, "--add-host", help="line of /etc/hosts: NAME:IP", metavar="HOST")
    _many(parser, "--dns", help="DNS server", metavar="IP")
    _many(parser, "--dns-search", help="search domain", metavar="DOMAIN")
    _many(parser, "--dns-option", "--dns-opt", help="option of resolv.conf", metavar="OPTION")
    parser.add_argument("--domainname", default="", help="NIS domain name inside")


def _add_storage(parser: Parser) -> None:
    _many(
        parser, "-v", "--volume", help="mount: [/HOST:|NAME:]/CONTAINER[:ro,...]", metavar="VOLUME"
    )
    _many(parser, "--mount", help="type=volume|bind|tmpfs,src=...,dst=...", metavar="MOUNT")
    _many(parser, "--volumes-from", help="mounts of CONTAINER[:ro]", metavar="CONTAINER")
    parser.add_argument(
        "--volume-driver", default="local", choices=("local", ""), help="only local"
    )
    _many(parser, "--tmpfs", help="tmpfs: /PATH[:OPTIONS]", metavar="TMPFS")
    parser.switch("--read-only", help="root file system read-only")
    parser.add_argument("--shm-size", default="", help="size of /dev/shm")


def _add_security(parser: Parser) -> None:
    _many(parser, "--cap-add", help="add a capability", metavar="CAP")
    _many(parser, "--cap-drop", help="drop a capability", metavar="CAP")
    parser.switch("--privileged", help="no restrictions")
    _many(
        parser,
        "--security-opt",
        help="no-new-privileges, seccomp=unconfined|FILE",
        metavar="OPTION",
    )
    parser.add_argument("--pid", default="", help="PID namespace: host or container:NAME")
    parser.add_argument("--ipc", default="", help="private, shareable, none, host, container:NAME")
    parser.add_argument("--uts", default="", help="UTS namespace: host")
    parser.add_argument("--userns", default="", help="user namespace: host")
    parser.add_argument("--cgroupns", default="", help="cgroup namespace: host or private")
    _many(
        parser, "--device", help="/HOST[:/CONTAINER[:rwm]] or VENDOR/CLASS=NAME", metavar="DEVICE"
    )
    _many(parser, "--device-cgroup-rule", help="'c 10:200 rwm'", metavar="RULE")
    parser.add_argument("--gpus", default="", help="GPUs, by CDI files: all, N, device=...")


def _add_limits(parser: Parser) -> None:
    for names, help in LIMITS:
        parser.add_argument(*names, default="", help=help)
    parser.switch("--oom-kill-disable", help="processes wait for memory instead of being killed")
    for flag, what in DEVICE_LIMITS:
        _many(parser, flag, help=f"{what} of a device", metavar="PATH:NUMBER")
    parser.add_argument("--pids-limit", default="", help="limit of processes")
    parser.add_argument("--cgroup-parent", default="", help="control group to make its own in")
    _many(parser, "--ulimit", help="NAME=SOFT[:HARD]", metavar="ULIMIT")
    _many(parser, "--sysctl", help="NAME=VALUE", metavar="SYSCTL")


def _add_health(parser: Parser) -> None:
    parser.add_argument("--health-cmd", default="", help="command that checks its health")
    parser.add_argument("--health-interval", default="", help="time between checks (30s)")
    parser.add_argument("--health-timeout", default="", help="time that a check may take (30s)")
    parser.add_argument("--health-retries", default="", help="failures that make it unhealthy (3)")
    parser.add_argument(
        "--health-start-period", default="", help="time in which failures count not"
    )
    parser.add_argument(
        "--health-start-interval", default="", help="time between checks in the start period (5s)"
    )
    parser.switch("--no-healthcheck", help="do without the image's check")


def _health(args: argparse.Namespace) -> Healthcheck | None:
    """What is asked for; the module that reads it is loaded only if something is."""
    texts = (
        *(args.health_cmd, args.health_interval, args.health_timeout, args.health_retries),
        *(args.health_start_period, args.health_start_interval),
    )
    if not (args.no_healthcheck or any(texts)):
        return None
    from lamina.cli.health_flags import parse_health

    return parse_health(*texts, without=args.no_healthcheck)


def _add_refused(parser: Parser) -> None:
    parser.refuse("--link", why="containers of one `lamina network` find one another by name")
    parser.refuse("--link-local-ip", "--storage-opt", why=_LATER)
    parser.refuse("--kernel-memory", why="Linux has no such limit any more: use --memory")
    parser.refuse("--cpu-rt-period", "--cpu-rt-runtime", why="use --cpus")
    parser.refuse("--cpu-count", "--cpu-percent", "--io-maxbandwidth", "--io-maxiops", why=_WINDOWS)
    parser.refuse("--isolation", why=_WINDOWS)
    parser.refuse("--use-api-socket", "--disable-content-trust", why=_DAEMON)


def run_options(args: argparse.Namespace, context: Context) -> RunOptions:
    """The options in `args`. Raises LaminaError of kind USAGE or UNSUPPORTED."""
    no_new_privileges, seccomp, extras = _extras(args, context)
    driver, max_size, max_file = _log_options(args)
    network, networks = _networks(args)
    return RunOptions(
        command=tuple(args.rest[1:]),
        entrypoint=None if args.entrypoint is None else (args.entrypoint,),
        name=args.name,
        env=environment(args.env, args.env_file, context),
        working_dir=_working_dir(args.workdir),
        user=args.user,
        groups=tuple(args.group_add),
        hostname=args.hostname,
        labels=_labels(args.label, args.label_file, context),
        mounts=_mounts(args, context),
        volumes_from=_volumes_from(args.volumes_from),
        network=network,
        networks=networks,
        ports=tuple(port for text in args.publish for port in parse_publish(text)),
        expose=tuple(port for text in args.expose for port in _expose(text)),
        publish_all=args.publish_all,
        extra_hosts=tuple(_host(text) for text in args.add_host),
        dns=tuple(args.dns),
        dns_search=tuple(args.dns_search),
        dns_options=tuple(args.dns_option),
        domainname=args.domainname,
        interactive=args.interactive,
        attach=_attach(args.attach, interactive=args.interactive),
        terminal=args.tty,
        auto_remove=args.rm,
        privileged=args.privileged,
        no_new_privileges=no_new_privileges,
        seccomp=seccomp,
        cap_add=tuple(args.cap_add),
        cap_drop=tuple(args.cap_drop),
        read_only=args.read_only,
        memory=parse_memory(args.memory),
        memory_swap=_swap(args),
        cpus=parse_cpus(args.cpus),
        cpu_shares=parse_integer(args.cpu_shares, "--cpu-shares"),
        cpuset_cpus=args.cpuset_cpus,
        cpuset_mems=args.cpuset_mems,
        extras=extras,
        pids_limit=parse_integer(args.pids_limit, "--pids-limit"),
        ulimits=tuple(parse_ulimit(text) for text in args.ulimit),
        sysctls=tuple(_pair(text, "--sysctl") for text in args.sysctl),
        shm_size=_size(args.shm_size, "--shm-size") if args.shm_size else DEFAULT_SHM_SIZE,
        stop_signal=args.stop_signal,
        stop_timeout=parse_integer(args.stop_timeout, "--stop-timeout", default=10),
        log_driver=driver,
        log_max_size=max_size,
        log_max_file=max_file,
        restart=args.restart or "no",
        health=_health(args),
    )


def _attach(texts: Sequence[str], *, interactive: bool) -> tuple[str, ...] | None:
    """The streams of `-a`; `-i` has stdin too. None if it is not given."""
    if not texts:
        return None
    names = {text.lower() for text in texts}
    if names - {"stdin", "stdout", "stderr"}:
        raise LaminaError("valid streams are STDIN, STDOUT and STDERR", kind=Kind.USAGE)
    if interactive:
        names.add("stdin")
    return tuple(sorted(names))


def _networks(args: argparse.Namespace) -> tuple[str, tuple[NetworkRequest, ...]]:
    """The network mode, and what networks are asked for beyond that."""
    plain = args.network_alias or args.ip or args.ip6 or args.mac_address or len(args.network) > 1
    mode = args.network[0] if args.network else "bridge"
    if not plain and mode in {"bridge", "default", "host", "none"}:
        return ("bridge" if mode == "default" else mode), ()
    from lamina.cli.network_flags import read_networks

    return read_networks(args)


def _mounts(args: argparse.Namespace, context: Context) -> tuple[Mount, ...]:
    """What is to be mounted; the module that reads it is loaded only if something is."""
    if not (args.volume or args.mount or args.tmpfs):
        return ()
    from lamina.cli.mount_flags import parse_mount, parse_tmpfs, parse_volume

    resolve = _resolver(context)
    return (
        *(parse_volume(text, resolve=resolve) for text in args.volume),
        *(parse_mount(text, resolve=resolve) for text in args.mount),
        *(parse_tmpfs(text) for text in args.tmpfs),
    )


def _volumes_from(texts: Sequence[str]) -> tuple[str, ...]:
    if not texts:
        return ()
    from lamina.cli.mount_flags import parse_volumes_from

    return tuple(parse_volumes_from(text) for text in texts)


def environment(
    texts: Sequence[str], files: Sequence[str], context: Context
) -> tuple[tuple[str, str], ...]:
    """(name, value) of `-e` and `--env-file`; a bare NAME is taken from our environment.

    Files come first, so that `-e` wins. A bare name that we do not have is left out.
    """
    found: list[tuple[str, str]] = []
    for path in files:
        for line in _lines(path, context):
            name = line.partition("=")[0]
            if not name or any(c.isspace() for c in name):
                raise LaminaError(
                    f"invalid env file ({path}): variable {name!r} contains whitespaces or is empty",
                    kind=Kind.USAGE,
                )
            found += _variable(line, context)
    for text in texts:
        if not text.partition("=")[0]:
            raise LaminaError(f"invalid environment variable: {text}", kind=Kind.USAGE)
        found += _variable(text, context)
    return tuple(found)


def _variable(text: str, context: Context) -> list[tuple[str, str]]:
    name, equals, value = text.partition("=")
    if equals:
        return [(name, value)]
    return [(name, context.env[name])] if name in context.env else []


def _lines(path: str, context: Context) -> list[str]:
    """The lines of an env or label file: comments and empty lines left out, a BOM dropped."""
    with open(context.path(path), encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = [line.rstrip("\r\n").lstrip() for line in file]
    return [line for line in lines if line and not line.startswith("#")]


def _labels(
    texts: Sequence[str], files: Sequence[str], context: Context
) -> tuple[tuple[str, str], ...]:
    lines = [line for path in files for line in _lines(path, context)]
    found: dict[str, str] = {}
    for text in (*lines, *texts):
        name, _, value = text.partition("=")
        if not name:
            raise LaminaError(f"invalid label: {text!r}", kind=Kind.USAGE)
        found[name] = value
    return tuple(found.items())


def _resolver(context: Context) -> Callable[[str], str]:
    """A function (text) -> absolute host path, `~` and `..` resolved as a shell would."""

    def resolve(text: str) -> str:
        if text == "~" or text.startswith("~/"):
            text = context.env.get("HOME", "~") + text[1:]
        return os.path.normpath(context.path(text))

    return resolve


def _working_dir(text: str) -> str:
    if text and not text.startswith("/"):
        raise LaminaError(
            f"the working directory '{text}' is invalid, it needs to be an absolute path",
            kind=Kind.USAGE,
        )
    return text


def _host(text: str) -> tuple[str, str]:
    name, separator, address = text.partition("=" if "=" in text else ":")
    if not separator or not name or not address:
        raise LaminaError(f"bad format for add-host: {text!r}", kind=Kind.USAGE)
    return name, address


def _expose(text: str) -> list[str]:
    ports, _, protocol = text.partition("/")
    first, dash, last = ports.partition("-")
    try:
        low, high = int(first), int(last if dash else first)
    except ValueError:
        low, high = 0, 0
    if not 0 < low <= high < 65536:
        raise LaminaError(f"invalid range format for --expose: {text}", kind=Kind.USAGE)
    return [f"{port}/{protocol or 'tcp'}" for port in range(low, high + 1)]


def _extras(args: argparse.Namespace, context: Context) -> tuple[bool, str, Extras | None]:
    """(no_new_privileges, seccomp, the rest) of what few containers ask for."""
    if not any(getattr(args, name) for name in _EXTRAS):
        return False, "", None
    from lamina.cli.extra_flags import parse_extras
    from lamina.cli.security_flags import parse_security

    security = parse_security(args.security_opt, context)
    extras = parse_extras(args, security)
    return security.no_new_privileges, security.seccomp, extras


def _log_options(args: argparse.Namespace) -> tuple[str, int, int]:
    if args.log_driver == "json-file" and not args.log_opt:
        return args.log_driver, 0, 1
    from lamina.cli.log_flags import log_options

    return log_options(args.log_driver, args.log_opt)


def _swap(args: argparse.Namespace) -> int:
    if not args.memory_swap:
        return 0
    from lamina.cli.extra_flags import parse_swap

    return parse_swap(args.memory_swap, memory=parse_memory(args.memory))


def parse_memory(text: str) -> int:
    """Bytes of `--memory`, 0 for none. Raises LaminaError of kind USAGE."""
    size = _size(text, "--memory") if text else 0
    if 0 < size < 6 << 20:  # moby: linuxMinMemory
        raise LaminaError("Minimum memory limit allowed is 6MB", kind=Kind.USAGE)
    return size


def parse_cpus(text: str) -> float:
    """The number of `--cpus`, 0 for none. Raises LaminaError of kind USAGE."""
    if not text:
        return 0.0
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.01 <= value <= 1 << 20:
        raise LaminaError(f"invalid number of CPUs: {text!r}", kind=Kind.USAGE)
    return value


def parse_integer(text: str, flag: str, *, default: int = 0) -> int:
    """The number, `default` for an empty text. Raises LaminaError of kind USAGE."""
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise LaminaError(f'invalid argument "{text}" for "{flag}" flag', kind=Kind.USAGE) from None


def _pair(text: str, flag: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise LaminaError(f'invalid argument "{text}" for "{flag}" flag', kind=Kind.USAGE)
    return name, value


def parse_ulimit(text: str) -> tuple[str, int, int]:
    """(name, soft, hard) of `--ulimit`, -1 is unlimited. Raises LaminaError of kind USAGE."""
    name, _, values = text.partition("=")
    soft, _, hard = values.partition(":")
    try:
        low = -1 if soft == "unlimited" else int(soft)
        high = low if not hard else -1 if hard == "unlimited" else int(hard)
    except ValueError:
        raise LaminaError(f"invalid ulimit argument: {text}", kind=Kind.USAGE) from None
    if high != -1 and (low > high or low == -1):
        raise LaminaError(
            f"ulimit soft limit must be less than or equal to hard limit: {text}", kind=Kind.USAGE
        )
    return name, low, high


def _size(text: str, flag: str) -> int:
    from lamina.cli.values import parse_size

    return parse_size(text, flag)
