# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from lamina.container.usage import Usage, memory_of_host, read_usage

ID = "c" * 64
NET = (
    "Inter-|   Receive                                                |  Transmit\n"
    " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n"
    "    lo:     999       9    0    0    0     0          0         0      999       9\n"
    "  eth0:    1500      10    0    0    0     0          0         0      700       7\n"
)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def usage(tmp_path: Path, *, network: bool = True) -> Usage:
    proc, cgroups = str(tmp_path / "proc"), str(tmp_path / "cgroup")
    return read_usage(7, ID, network=network, proc=proc, cgroups=cgroups)


def test_counters_of_v1(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/7/net/dev": NET,
            "proc/7/cgroup": f"4:memory:/{ID}\n3:cpu,cpuacct:/{ID}\n2:pids:/p/{ID}\n1:blkio:/{ID}\n",
            f"cgroup/cpuacct/{ID}/cpuacct.usage": "2000000000\n",
            f"cgroup/memory/{ID}/memory.usage_in_bytes": "5000\n",
            f"cgroup/memory/{ID}/memory.limit_in_bytes": "67108864\n",
            f"cgroup/memory/{ID}/memory.stat": "inactive_file 5\ntotal_inactive_file 1000\n",
            f"cgroup/pids/p/{ID}/pids.current": "3\n",
            f"cgroup/blkio/{ID}/blkio.throttle.io_service_bytes_recursive": (
                "254:0 Read 4096\n254:0 Write 8192\n254:16 Read 1\n254:0 Total 12288\nTotal 12289\n"
            ),
        },
    )
    assert usage(tmp_path) == Usage(
        cpu=2 * 10**9, memory=4000, limit=64 << 20, received=1500, sent=700, read=4097,
        written=8192, pids=3,
    )  # fmt: skip
    assert usage(tmp_path, network=False).received == 0


def test_no_limit_of_v1_is_none(tmp_path: Path) -> None:
    limit = f"cgroup/memory/{ID}/memory.limit_in_bytes"
    write(tmp_path, {"proc/7/cgroup": f"4:memory:/{ID}\n", limit: "9223372036854771712\n"})
    assert usage(tmp_path).limit == 0


@pytest.mark.parametrize("mount", ["cgroup", "cgroup/unified"])
def test_counters_of_v2(tmp_path: Path, mount: str) -> None:
    top = f"{mount}/user.slice/{ID}"
    write(
        tmp_path,
        {
            "proc/7/cgroup": f"0::/user.slice/{ID}\n",
            f"{top}/cpu.stat": "usage_usec 1500\nuser_usec 1000\n",
            f"{top}/memory.current": "5000\n",
            f"{top}/memory.stat": "inactive_file 1000\ntotal_inactive_file 9\n",
            f"{top}/memory.max": "max\n",
            f"{top}/pids.current": "2\n",
            f"{top}/io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1\n",
        },
    )
    assert usage(tmp_path) == Usage(cpu=1_500_000, memory=4000, read=11, written=20, pids=2)


def test_processes_of_the_pid_namespace_without_a_control_group(tmp_path: Path) -> None:
    import os

    stat = "{} (a) b)) S 1 1 1 0 -1 0 0 0 0 0 30 12 0 0 20 0 {} 0 5 9999 10 0"
    write(
        tmp_path,
        {
            "proc/7/cgroup": "0::/somebody/else\n",
            "proc/7/stat": stat.format(7, 2),
            "proc/8/stat": stat.format(8, 1),
            "proc/9/stat": stat.format(9, 1),
            "proc/7/io": "rchar: 9\nread_bytes: 4096\nwrite_bytes: 1\n",
        },
    )
    for pid, namespace in ((7, "pid:[1]"), (8, "pid:[1]"), (9, "pid:[2]")):
        (tmp_path / f"proc/{pid}/ns").mkdir()
        (tmp_path / f"proc/{pid}/ns/pid").symlink_to(namespace)
    tick, page = 10**9 // os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    expected = Usage(cpu=84 * tick, memory=20 * page, read=4096, written=1, pids=3)
    assert usage(tmp_path, network=False) == expected


def test_container_that_has_just_ended_uses_nothing(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    assert usage(tmp_path) == Usage()


def test_memory_of_host(tmp_path: Path) -> None:
    write(tmp_path, {"meminfo": "MemTotal:       1024 kB\nMemFree:  1 kB\n"})
    assert memory_of_host(proc=str(tmp_path)) == 1 << 20
