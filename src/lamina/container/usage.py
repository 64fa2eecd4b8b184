# SPDX-License-Identifier: Apache-2.0
"""What a running container has used: the counters of its control group, else of its processes.

Where no control group can be made (an ordinary user without delegation) the processes of its pid
namespace are added up: what has ended is forgotten, and memory that they share counts for each.
"""

from __future__ import annotations

import os

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_UNLIMITED = 1 << 62  # v1 says "no limit" by a number of pages near the end of 64 bits


class Usage(Record):
    """Counters since the start, but `memory`, `limit` and `pids`, which are of now.

    `cpu` in nanoseconds, the others in bytes; `limit` is 0 for none.
    """

    cpu: int = 0
    memory: int = 0
    limit: int = 0
    received: int = 0
    sent: int = 0
    read: int = 0
    written: int = 0
    pids: int = 0


def read_usage(
    pid: int, id: str, *, network: bool, proc: str = "/proc", cgroups: str = "/sys/fs/cgroup"
) -> Usage:
    """The usage of container `id`, whose first process is `pid`; zeros if it has just ended.

    `network` says whether it has a network of its own: the host's is not its doing.
    """
    received, sent = _network(f"{proc}/{pid}/net/dev") if network else (0, 0)
    groups = _groups(f"{proc}/{pid}/cgroup", id)
    counted = _of_v1(groups, cgroups) if "memory" in groups else None
    if counted is None and "" in groups:
        counted = _of_v2(groups[""], cgroups)
    cpu, memory, limit, read, written, pids = counted or _of_processes(pid, proc)
    return Usage(cpu, memory, limit, received, sent, read, written, pids)


_Counted = tuple[int, int, int, int, int, int]  # cpu, memory, limit, read, written, pids


def _groups(path: str, id: str) -> dict[str, str]:
    """The groups by controller, "" is v2's; only those that are the container's alone."""
    lines = (line.split(":", 2) for line in _text(path).splitlines())
    own = [line for line in lines if len(line) == 3 and f"/{id}" in line[2]]
    return {name: group for _, names, group in own for name in names.split(",")}


def _of_v1(groups: dict[str, str], root: str) -> _Counted:
    def text(controller: str, file: str) -> str:
        group = groups.get(controller)
        return "" if group is None else _text(f"{root}/{controller}{group}/{file}")

    statistics = _pairs(text("memory", "memory.stat"))
    used = _number(text("memory", "memory.usage_in_bytes"))
    limit = _number(text("memory", "memory.limit_in_bytes"))
    rows = [line.split() for line in text("blkio", _V1_BYTES).splitlines()]
    moved = {kind: sum(int(r[2]) for r in rows if r[1:2] == [kind]) for kind in ("Read", "Write")}
    return (
        _number(text("cpuacct", "cpuacct.usage")),
        max(used - statistics.get("total_inactive_file", 0), 0),
        limit if limit < _UNLIMITED else 0,
        moved["Read"],
        moved["Write"],
        _number(text("pids", "pids.current")),
    )


_V1_BYTES = "blkio.throttle.io_service_bytes_recursive"


def _of_v2(group: str, root: str) -> _Counted | None:
    """None where the group is there for the freezer only, with no controller to count."""
    top = next(
        (
            f"{each}{group}"
            for each in (root, f"{root}/unified")
            if os.path.exists(f"{each}{group}/memory.current")
        ),
        None,
    )
    if top is None:
        return None
    statistics = _pairs(_text(f"{top}/memory.stat"))
    moved = {"rbytes": 0, "wbytes": 0}
    for line in _text(f"{top}/io.stat").splitlines():
        for word in line.split()[1:]:
            name, _, value = word.partition("=")
            if name in moved:
                moved[name] += int(value)
    limit = _text(f"{top}/memory.max").strip()
    return (
        _pairs(_text(f"{top}/cpu.stat")).get("usage_usec", 0) * 1000,
        max(
            _number(_text(f"{top}/memory.current")) - statistics.get("inactive_file", 0),
            0,
        ),
        _number(limit),
        moved["rbytes"],
        moved["wbytes"],
        _number(_text(f"{top}/pids.current")),
    )


def _of_processes(first: int, proc: str) -> _Counted:
    cpu = memory = read = written = threads = 0
    tick, page = 10**9 // os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    for pid in _in_pid_namespace(first, proc):
        fields = _text(f"{proc}/{pid}/stat").rpartition(")")[2].split()
        if len(fields) < 22:  # it has ended
            continue
        cpu += (int(fields[11]) + int(fields[12])) * tick
        threads += int(fields[17])
        memory += int(fields[21]) * page
        counters = _pairs(_text(f"{proc}/{pid}/io").replace(":", ""))
        read += counters.get("read_bytes", 0)
        written += counters.get("write_bytes", 0)
    return cpu, memory, 0, read, written, threads


def _in_pid_namespace(first: int, proc: str) -> Iterator[int]:
    try:
        wanted = os.readlink(f"{proc}/{first}/ns/pid")
    except OSError:
        return
    for name in os.listdir(proc):
        if name.isdigit():
            try:
                if os.readlink(f"{proc}/{name}/ns/pid") == wanted:
                    yield int(name)
            except OSError:  # gone, or another user's
                continue


def _network(path: str) -> tuple[int, int]:
    """(received, sent) of all devices but loopback (proc_pid_net(5), dev)."""
    received = sent = 0
    for line in _text(path).splitlines()[2:]:
        name, _, numbers = line.partition(":")
        if name.strip() != "lo":
            received += int(numbers.split()[0])
            sent += int(numbers.split()[8])
    return received, sent


def memory_of_host(*, proc: str = "/proc") -> int:
    """Bytes of memory that this host has."""
    return (
        _pairs(_text(f"{proc}/meminfo").replace(":", "").replace(" kB", "")).get("MemTotal", 0)
        * 1024
    )


def _pairs(text: str) -> dict[str, int]:
    """The `name number` lines of a kernel file."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def _number(text: str) -> int:
    return int(text) if text.strip().isdigit() else 0


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:  # not there, or the container ends at this moment
        return ""
