# SPDX-License-Identifier: Apache-2.0
"""List containers."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from lamina.app.containers import Container
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context
    from lamina.container.network.publish import PortMapping
    from lamina.container.state import State

USAGE = "[OPTIONS]"
HEADERS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED",
    "Ports": "PORTS",
    "State": "STATE",
    "Status": "STATUS",
    "Size": "SIZE",
    "Names": "NAMES",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Networks": "NETWORKS",
}
_DEFAULT = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")


def configure(parser: Parser) -> None:
    parser.switch("-a", "--all", help="also those that do not run")
    parser.add_argument(
        "-f", "--filter", action="append", default=[], help="name=, id=, status=, ancestor=, ..."
    )
    parser.add_argument("--format", default=None, help="table, json, or a Go template")
    parser.add_argument("-n", "--last", type=int, default=-1, help="the last N created")
    parser.switch("-l", "--latest", help="the last created")
    parser.switch("--no-trunc", help="do not shorten")
    parser.switch("-q", "--quiet", help="ids only")
    parser.switch("-s", "--size", help="also the size of what was written")


def run(args: argparse.Namespace, context: Context) -> int:
    from lamina.app.containers import list_containers
    from lamina.cli.format import listing

    filters = [_filter(text, context) for text in args.filter]
    shows_all = args.all or args.latest or args.last >= 0 or _asks_status(args.filter)
    found = [(container, container.state()) for container in list_containers(context.store())]
    found = [
        (container, state)
        for container, state in found
        if (shows_all or state.is_up) and all(test(container, state) for test in filters)
    ]
    last = 1 if args.latest else args.last
    if last >= 0:
        found = found[:last]
    rows = [_row(container, state, args, context) for container, state in found]
    default = (*_DEFAULT, "Size") if args.size else _DEFAULT
    for line in listing(
        args.format, headers=HEADERS, default=default, rows=rows, quiet="ID" if args.quiet else ""
    ):
        context.print(line)
    return 0


def _row(
    container: Container, state: State, args: argparse.Namespace, context: Context
) -> dict[str, object]:
    from lamina.cli.format import ago, status_text

    config = container.config
    is_paused = state.is_running and container.is_paused
    command = " ".join(config.process.argv)
    shows_size = args.size or "Size" in (args.format or "")
    mounts = [mount.source for mount in config.process.mounts if mount.type != "tmpfs"]
    return {
        "ID": container.id if args.no_trunc else container.id[:12],
        "Image": config.image,
        "Command": f'"{command if args.no_trunc else _shortened(command, 20)}"',
        "CreatedAt": _local_time(container.created),
        "RunningFor": ago(context.clock() - container.created),
        "Ports": ports_text(state.ports if state.is_running else (), config.exposed, state),
        "State": "paused" if is_paused else state.status,
        "Status": status_text(state, now=context.clock()) + _note(container, state, is_paused),
        "Size": _size(container) if shows_size else "",
        "Names": container.name,
        "Labels": Labels.of(config.labels),
        "Mounts": ",".join(mounts if args.no_trunc else [_shortened(m, 15) for m in mounts]),
        "LocalVolumes": str(sum(mount.type == "volume" for mount in config.process.mounts)),
        "Networks": _networks(container, args.format or ""),
    }


def _note(container: Container, state: State, is_paused: bool) -> str:  # noqa: FBT001  # private
    """What follows the status of a container that runs: `(Paused)`, or its health."""
    if is_paused:
        return " (Paused)"
    health = _health(container, state) if state.is_running else "none"
    shown = {"none": "", "starting": " (health: starting)"}
    return shown.get(health, f" ({health})")


def _health(container: Container, state: State) -> str:
    """`starting`, `healthy`, `unhealthy`, or `none` without a check."""
    return str((container.health(state) or {}).get("Status", "none"))


def ports_text(ports: Sequence[PortMapping], exposed: Sequence[str], state: State) -> str:
    """`0.0.0.0:8080->80/tcp, 443/tcp`: published ports, then those that are only exposed."""
    if not state.is_running:
        return ""
    taken = {f"{port.container_port}/{port.protocol}" for port in ports}
    return ", ".join([str(port) for port in ports] + [e for e in exposed if e not in taken])


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"  # docker/cli: Ellipsis


def _local_time(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def _size(container: Container) -> str:
    from lamina.image.sizes import human_size

    return human_size(container.size())


def _networks(container: Container, format_text: str) -> str:
    """The names of its networks, if they will be shown: the table has no such column."""
    if "Networks" not in format_text and "json" not in format_text:
        return ""
    return ",".join(sorted(member.name for member in container.memberships()))


def _asks_status(texts: Sequence[str]) -> bool:
    return any(text.startswith(("status=", "exited=")) for text in texts)


def _filter(text: str, context: Context) -> Callable[[Container, State], bool]:
    """A test for `name=value`; several filters must all hold. Raises kind USAGE."""
    import re

    name, equals, value = text.partition("=")
    if not equals:
        raise LaminaError("bad format of filter (expected name=value)", kind=Kind.USAGE)
    match name:
        case "name":
            pattern = re.compile(value.removeprefix("/") if value != "/" else value)
            return lambda container, _: pattern.search(container.name) is not None
        case "id":
            return lambda container, _: container.id.startswith(value)
        case "status":
            if value not in {"created", "running", "exited", "paused", "restarting", "dead"}:
                raise LaminaError(f"invalid filter 'status={value}'", kind=Kind.USAGE)
            return lambda container, state: (
                value == ("paused" if container.is_paused else state.status)
            )
        case "health":
            if value not in {"starting", "healthy", "unhealthy", "none"}:
                raise LaminaError(f"invalid filter 'health={value}'", kind=Kind.USAGE)
            return lambda container, state: _health(container, state) == value
        case "exited":
            return lambda _, state: state.status == "exited" and str(state.exit_status) == value
        case "ancestor":
            id = _image_id(value, context)
            return lambda container, _: (
                value == container.config.image or (id != "" and container.config.image_id == id)
            )
        case "label":
            key, has_value, wanted = value.partition("=")

            def by_label(container: Container, _: State) -> bool:
                labels = dict(container.config.labels)
                return key in labels and (not has_value or labels[key] == wanted)

            return by_label
        case "network":
            return lambda container, _: any(
                value == member.name or member.endpoint.network.startswith(value)
                for member in container.memberships()
            )
        case "volume":
            return lambda container, _: any(
                value in {mount.source, mount.destination}
                for mount in container.config.process.mounts
            )
        case "publish" | "expose":
            port = value if "/" in value else f"{value}/tcp"
            return lambda container, _: port in container.config.exposed
    raise LaminaError(f"invalid filter '{name}'", kind=Kind.USAGE)


def _image_id(text: str, context: Context) -> str:
    from lamina.image.resolve import find_image

    try:
        return str(find_image(context.store(), text).id)
    except LaminaError:
        return ""  # an image that is gone has containers by its name at most


class Labels(str):
    """`a=b,c=d`, of which a template's `.Label "a"` finds one."""

    __slots__ = ("named",)
    named: dict[str, str]

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, str]]) -> Labels:
        """The labels in their order."""
        made = cls(",".join(f"{name}={value}" for name, value in pairs))
        made.named = dict(pairs)
        return made
