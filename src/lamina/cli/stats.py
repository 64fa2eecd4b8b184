# SPDX-License-Identifier: Apache-2.0
"""Show what containers use, again and again."""

from __future__ import annotations

import time

from lamina.app.containers import find, list_containers
from lamina.cli.format import listing
from lamina.container.usage import Usage, memory_of_host, read_usage
from lamina.image.sizes import human_size
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lamina.app.containers import Container
    from lamina.cli.arguments import Parser
    from lamina.cli.context import Context

USAGE = "[OPTIONS] [CONTAINER...]"
STATUS_OF_FAILURE = 1
HEADERS = {
    "Container": "CONTAINER",
    "ID": "CONTAINER ID",
    "Name": "NAME",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
_DEFAULT = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
_PERIOD = 1.0  # seconds between two looks
_CLEAR = "\033[2J\033[H"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def configure(parser: Parser) -> None:
    parser.switch("-a", "--all", help="also those that do not run")
    parser.add_argument("--format", default=None, help="table, json, or a Go template")
    parser.switch("--no-stream", help="print once, and end")
    parser.switch("--no-trunc", help="do not shorten")
    parser.add_argument("containers", nargs="*", default=[], metavar="CONTAINER")


def run(args: argparse.Namespace, context: Context) -> int:
    token = context.token()
    host_memory = memory_of_host()
    clears = not args.no_stream and context.stdout.isatty()
    before = {look.container.id: look for look in _looks(args, context)}
    while True:
        token.wait(_PERIOD)
        token.check()
        now = _looks(args, context)
        rows = [
            _row(look, before.get(look.container.id, look), host_memory, is_long=args.no_trunc)
            for look in now
        ]
        _print(rows, args.format, context, clears=clears)
        if args.no_stream:
            return 0
        before = {look.container.id: look for look in now}


class Look(Record):
    """What a container had used at the moment `at` (seconds of a clock that only goes on).

    `asked` is what the user called it. A container that does not run uses nothing.
    """

    container: Container
    asked: str
    at: float
    usage: Usage


def _looks(args: argparse.Namespace, context: Context) -> list[Look]:
    if args.containers:
        chosen = [(find(context.store(), text), text) for text in args.containers]
    else:
        chosen = [(container, container.id) for container in list_containers(context.store())]
    found = []
    for container, asked in chosen:
        state = container.state()
        usage = Usage()
        if state.is_running:
            own = container.config.network not in {"host", "none"}
            usage = read_usage(state.pid, container.id, network=own)
        elif not (args.all or args.containers):
            continue
        found.append(Look(container, asked, time.monotonic(), usage))
    return found


def _row(look: Look, before: Look, host_memory: int, *, is_long: bool) -> dict[str, object]:
    now = look.usage
    passed = (look.at - before.at) * 10**9
    # what has ended is no longer counted where there is no control group
    used = max(now.cpu - before.usage.cpu, 0)
    limit = min(now.limit or host_memory, host_memory) if now.pids else 0
    container = look.container
    return {
        "Container": look.asked,
        "ID": container.id if is_long else container.id[:12],
        "Name": container.name,
        "CPUPerc": f"{used / passed * 100 if passed > 0 else 0:.2f}%",
        "MemUsage": f"{binary_size(now.memory)} / {binary_size(limit)}",
        "MemPerc": f"{now.memory / limit * 100 if limit else 0:.2f}%",
        "NetIO": f"{human_size(now.received)} / {human_size(now.sent)}",
        "BlockIO": f"{human_size(now.read)} / {human_size(now.written)}",
        "PIDs": str(now.pids),
    }


def _print(
    rows: Sequence[dict[str, object]], format_text: str | None, context: Context, *, clears: bool
) -> None:
    lines = list(listing(format_text, headers=HEADERS, default=_DEFAULT, rows=rows))
    if clears:
        context.stdout.write(_CLEAR)
    for line in lines:
        context.print(line)
    context.stdout.flush()


def binary_size(size: float) -> str:
    """`1.5MiB` (go-units BytesSize)."""
    value, unit = float(size), _UNITS[0]
    for unit in _UNITS:  # noqa: B007  # the one it stops at
        if value < 1024:
            break
        value /= 1024
    return f"{value:.4g}{unit}"
