# SPDX-License-Identifier: Apache-2.0
"""The flags of `build` that RUN steps feel: secrets, SSH agents, entitlements, limits."""

from __future__ import annotations

import os
import stat

from lamina.cli.values import parse_size
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from lamina.builder.options import StepLimits
    from lamina.builder.secrets import Secrets
    from lamina.builder.sshagents import AgentSource, SshAgents
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

_ENTITLEMENTS = ("network.host", "security.insecure")
_CPU_PERIODS = range(1_000, 1_000_001)  # microseconds, the kernel's limits
_MINIMUM_QUOTA = 1_000  # microseconds
_MINIMUM_MEMORY = 6 << 20  # bytes; moby's linuxMinMemory


def add_step_flags(parser: Parser) -> None:
    """The flags, as buildx and Docker spell them."""
    add = parser.add_argument
    add("--secret", action="append", default=[], help="id=ID,src=FILE or id=ID,env=NAME")
    add("--ssh", action="append", default=[], help="default, or ID=SOCKET, or ID=KEYFILE,...")
    add("--allow", action="append", default=[], help="network.host or security.insecure")
    add("--ulimit", action="append", default=[], help="limit of RUN steps: NAME=SOFT[:HARD]")
    add("-m", "--memory", default="", help="memory limit of each RUN step, as 512m")
    add("--memory-swap", default="", help="limit of memory and swap together; -1: none on swap")
    add("--cpus", default="", help="number of CPUs of each RUN step, as 1.5")
    add("--cpu-period", default="", help="period of the CPU quota in microseconds")
    add("--cpu-quota", default="", help="CPU time in each period, in microseconds")
    add("-c", "--cpu-shares", default="", help="relative weight of CPU time")
    add("--cpuset-cpus", default="", help="CPUs for RUN steps, as 0-2,5")
    add("--cpuset-mems", default="", help="memory nodes for RUN steps, as 0-1")
    parser.refuse(
        "--cgroup-parent", why="each step has a control group of its own beneath the root"
    )


def entitlements(args: argparse.Namespace) -> tuple[str, ...]:
    """What `--allow` grants; `--network host` grants the host's network, as in buildx."""
    for name in args.allow:
        if name == "device" or name.startswith("device="):
            raise LaminaError(
                f"--allow {name} is not supported: RUN --device is not", kind=Kind.UNSUPPORTED
            )
        if name not in _ENTITLEMENTS:
            raise LaminaError(
                f"unknown entitlement {name}",
                kind=Kind.USAGE,
                hint=f"--allow takes {' and '.join(_ENTITLEMENTS)}",
            )
    granted = [
        *args.allow,
        *(["network.host"] if getattr(args, "network", "") == "host" else []),  # bake has no flag
    ]
    return tuple(dict.fromkeys(granted))


def secrets(args: argparse.Namespace, context: Context) -> Secrets | None:
    """The secrets of `--secret`; None if there are none. Files are looked at, and not read yet.

    Raises:
        LaminaError: USAGE; NOT_FOUND or EXHAUSTED for a file that cannot be used.
    """
    if not args.secret:
        return None
    from lamina.builder.secrets import Secrets, check_file

    files: dict[str, str] = {}
    values: dict[str, bytes] = {}
    for text in args.secret:
        id, path, variable = _secret(text)
        if not path and not variable:
            path, variable = ("", id) if id in context.env else (id, "")
        files.pop(id, None)
        values.pop(id, None)
        if variable:
            values[id] = os.fsencode(context.env.get(variable, ""))
        else:
            files[id] = context.path(path)
            check_file(id, files[id])
    return Secrets(files, values)


def _secret(text: str) -> tuple[str, str, str]:
    """(id, path, variable), after buildx's `parseSecret`."""
    id = path = variable = kind = ""
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if not equals:
            raise _invalid("--secret", f"invalid field '{field}' must be a key=value pair")
        match key.lower():
            case "type":
                if value not in {"file", "env"}:
                    raise _invalid("--secret", f'unsupported secret type "{value}"')
                kind = value
            case "id":
                id = value
            case "source" | "src":
                path = value
            case "env":
                variable = value
            case _:
                raise _invalid("--secret", f"unexpected key '{key}' in '{field}'")
    if kind == "env" and not variable:
        path, variable = "", path
    if not id:
        raise _invalid("--secret", "the id is missing")
    return id, path, variable


def ssh_agents(args: argparse.Namespace, context: Context) -> SshAgents | None:
    """The agents of `--ssh`; None if there are none.

    Raises:
        LaminaError: USAGE; NOT_FOUND for a socket or key file that does not exist.
    """
    if not args.ssh:
        return None
    from lamina.builder.sshagents import SshAgents

    sources: dict[str, AgentSource] = {}
    for text in args.ssh:
        id, _, listed = text.partition("=")
        id = id or "default"
        if id in sources:
            raise _invalid("--ssh", f"duplicate agent ID {id}")
        paths = [context.path(path) for path in listed.split(",")] if listed else []
        if not paths:
            socket = context.env.get("SSH_AUTH_SOCK", "")
            if not socket:
                raise LaminaError(
                    f"--ssh {text}: there is no SSH agent",
                    kind=Kind.NOT_FOUND,
                    hint="start one (SSH_AUTH_SOCK is not set), or give a key: --ssh default=FILE",
                )
            paths = [context.path(socket)]
        sources[id] = _agent(text, paths)
    path = f"{context.env.get('PATH', '')}:/usr/bin:/bin".lstrip(":")
    return SshAgents(sources, search_path=path)


def _agent(text: str, paths: list[str]) -> AgentSource:
    from lamina.builder.sshagents import AgentSource

    sockets = []
    for path in paths:
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            raise LaminaError(
                f"--ssh {text}: cannot use {path}: {error.strerror}", kind=Kind.NOT_FOUND
            ) from error
        if stat.S_ISSOCK(mode):
            sockets.append(path)
    if not sockets:
        return AgentSource(keys=tuple(paths))
    if len(sockets) > 1:
        raise _invalid("--ssh", "only single socket allowed")
    if len(paths) > 1:
        raise _invalid("--ssh", "invalid combination of keys and sockets")
    return AgentSource(socket=sockets[0])


def step_limits(args: argparse.Namespace) -> StepLimits | None:
    """The limits of each RUN; None if nothing is limited. Raises LaminaError (USAGE)."""
    texts = (
        args.memory,
        args.memory_swap,
        args.cpus,
        args.cpu_period,
        args.cpu_quota,
        args.cpu_shares,
        args.cpuset_cpus,
        args.cpuset_mems,
    )
    if not args.ulimit and not any(texts):
        return None
    from lamina.builder.options import StepLimits
    from lamina.cli.run_flags import parse_cpus, parse_ulimit

    memory, swap = _memory(args)
    cpus, period = _quota(args)
    if args.cpus:
        if cpus:
            raise _invalid("--cpus", "it cannot be given with --cpu-quota")
        cpus = parse_cpus(args.cpus)
    return StepLimits(
        memory=memory,
        memory_swap=swap,
        cpus=cpus,
        cpu_period=period,
        cpu_shares=_integer(args.cpu_shares, "--cpu-shares"),
        cpuset_cpus=_cpuset(args.cpuset_cpus, "--cpuset-cpus"),
        cpuset_mems=_cpuset(args.cpuset_mems, "--cpuset-mems"),
        ulimits=tuple(parse_ulimit(text) for text in args.ulimit),
    )


def _memory(args: argparse.Namespace) -> tuple[int, int]:
    """Bytes of memory, and of memory and swap together (-1: no limit)."""
    memory = parse_size(args.memory, "--memory") if args.memory else 0
    if 0 < memory < _MINIMUM_MEMORY:
        raise LaminaError("Minimum memory limit allowed is 6MB", kind=Kind.USAGE)
    if not args.memory_swap:
        return memory, 0
    if not memory:
        raise _invalid("--memory-swap", "it needs --memory")
    swap = -1 if args.memory_swap == "-1" else parse_size(args.memory_swap, "--memory-swap")
    if 0 < swap < memory:
        raise _invalid("--memory-swap", "it is smaller than --memory")
    return memory, swap


def _quota(args: argparse.Namespace) -> tuple[float, int]:
    """CPUs and period of `--cpu-quota` and `--cpu-period`."""
    quota = _integer(args.cpu_quota, "--cpu-quota")
    period = _integer(args.cpu_period, "--cpu-period")
    if period and period not in _CPU_PERIODS:
        raise _invalid("--cpu-period", "it must be from 1000 to 1000000 microseconds")
    if period and not quota:
        raise _invalid("--cpu-period", "it needs --cpu-quota")
    if not quota:
        return 0.0, 0
    if quota < _MINIMUM_QUOTA:
        raise _invalid("--cpu-quota", "it must be at least 1000 microseconds")
    return quota / (period or 100_000), period


def _integer(text: str, flag: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise _invalid(flag, f"not a number: {text!r}")
    return int(text)


def _cpuset(text: str, flag: str) -> str:
    """A list such as `0-2,5`."""
    for part in text.split(",") if text else ():
        low, dash, high = part.partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            raise _invalid(flag, f"not a list of numbers: {text!r}")
    return text


def _invalid(flag: str, what: str) -> LaminaError:
    return LaminaError(f'invalid argument for "{flag}" flag: {what}', kind=Kind.USAGE)
