# SPDX-License-Identifier: Apache-2.0
"""Times whole commands of lamina and of its peers in the same run, and judges them by the goals.

    .venv/bin/python bench/run.py [--quick] [--rows KEY,...] [--peers NAME,...] [--runs N]
                                  [--heavy-runs N] [--scale F] [--write docs/benchmarks.md] [--list]

bench/README.md says what is measured and how to read the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import registry as server
import table
from measure import BenchError, Runner, Sample, summary
from rows import ROWS, Bench, Row, flatness, make_base
from tools import TOOLS, Registry, open_tools

HERE = Path(__file__).resolve().parent
FLATNESS, SERVER = "memory", "server"
KEYS = [row.key for row in ROWS] + [FLATNESS, SERVER]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", default="", help=f"comma list of: {', '.join(KEYS)}")
    parser.add_argument("--peers", default=",".join(TOOLS), help="comma list (default: all)")
    parser.add_argument("--runs", type=int, help="timed runs of light rows (default 7; quick: 3)")
    parser.add_argument("--heavy-runs", type=int, help="of heavy rows (default 2; quick: 1)")
    parser.add_argument("--scale", type=float, help="size of heavy inputs (default 1; quick: 0.1)")
    parser.add_argument("--quick", action="store_true", help="less of everything: 3 minutes")
    parser.add_argument("--place", type=Path, help="directory for all stores (default: /dev/shm)")
    parser.add_argument("--write", type=Path, help="Markdown file that gets the tables")
    parser.add_argument("--json", type=Path, help="where to write (default: bench/results/)")
    parser.add_argument("--list", action="store_true", help="list the rows and end")
    given = parser.parse_args()
    given.rows = [key for key in given.rows.split(",") if key] or KEYS
    given.peers = [name for name in given.peers.split(",") if name]
    for kind, names, known in (("row", given.rows, KEYS), ("peer", given.peers, list(TOOLS))):
        for name in names:
            if name not in known:
                parser.error(f"no {kind} {name!r}: there are {', '.join(known)}")
    given.runs = _given(given.runs, 3 if given.quick else 7)
    given.heavy_runs = _given(given.heavy_runs, 1 if given.quick else 2)
    given.scale = _given(given.scale, 0.1 if given.quick else 1.0)
    if min(given.runs, given.heavy_runs) < 1 or given.scale <= 0:
        parser.error("runs and scale must be positive")
    return given


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value


def main() -> int:
    options = arguments()
    if options.list:
        print("\n".join(f"{row.key:<10} {row.title}" for row in ROWS))
        print(f"{FLATNESS:<10} lamina's peak memory at a tenth of the size and at the size")
        print(f"{SERVER:<10} the registry server beside docker-registry")
        return 0
    if options.write and table.BEGIN not in options.write.read_text():
        sys.exit(f"bench: {options.write} has no {table.BEGIN}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    shared = Path("/dev/shm")
    place = options.place or (shared if shared.is_dir() else None)
    work = Path(tempfile.mkdtemp(prefix="lamina-bench-", dir=place))
    try:
        document = measure_all(work, options)
    except BenchError as error:
        sys.exit(f"bench: {error}")
    finally:
        _clear(work)
    print(table.text(document))
    path = (
        options.json or HERE / "results" / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    )
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"written to {path}")
    if options.write:
        table.write(options.write, document)
        print(f"tables written to {options.write}")
    return 1 if any(row["failed"] for row in document["rows"].values()) else 0


def measure_all(work: Path, options: argparse.Namespace) -> table.Document:
    """Every row that was asked for; all daemons are stopped when this returns or raises."""
    begin = time.monotonic()
    # sources without bytecode would be compiled again by every command
    source = HERE.parent / "src/lamina"
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(source)], check=True)
    env = {**os.environ, "PYTHONPATH": str(source.parent)}
    subprocess.run([sys.executable, "-m", "lamina.start.codecache"], env=env, check=True)
    runner = Runner(work)  # it stops every daemon that it started
    document: table.Document = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "load_before": os.getloadavg()[0],
        "settings": {
            "runs": options.runs, "heavy_runs": options.heavy_runs, "scale": options.scale,
            "rows": options.rows,
        },
        "machine": _machine(work),
        "rows": {},
    }  # fmt: skip
    wanted = [row() for row in ROWS if row.key in options.rows]
    used = {tool for row in wanted for tool in row.tools}
    peers = [name for name in options.peers if name in used]
    try:
        tools, document["absent"] = open_tools(work, runner, peers)
        document["versions"] = {
            name: tool.version() for name, tool in tools.items() if name != "lamina, runc"
        }
        bench = Bench(work, runner, tools, options.scale)
        _open_registry(bench, wanted, document)
        if wanted or FLATNESS in options.rows:
            make_base(bench, "busybox")
        if FLATNESS in options.rows or any("bench-pool" in row.bases for row in wanted):
            make_base(bench, "bench-pool")
        for row in wanted:
            runs = options.heavy_runs if row.heavy else options.runs
            document["rows"][row.key] = measure_row(bench, row, runs)
        if FLATNESS in options.rows:
            _say(FLATNESS)
            document["flatness"] = flatness(bench)
    finally:
        runner.close()
    if SERVER in options.rows:
        _measure_server(document, quick=options.quick)
    samples = [s for row in document["rows"].values() for t in row["samples"].values() for s in t]
    walls = sum(sample["wall"] for sample in samples)
    document["others"] = sum(sample["other"] for sample in samples) / walls if walls else 0.0
    document["load_after"] = os.getloadavg()[0]
    document["seconds"] = time.monotonic() - begin
    return document


def _open_registry(bench: Bench, wanted: list[Row], document: table.Document) -> None:
    if any(row.needs_registry for row in wanted):
        if shutil.which("docker-registry"):
            bench.registry = Registry(bench.work, bench.runner)
            words = ["docker-registry", "--version"]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            document["versions"]["docker-registry"] = done.stdout.split()[-1]
        else:
            document["absent"]["docker-registry"] = "not installed: rows that pull are left out"
            wanted[:] = [row for row in wanted if not row.needs_registry]


def measure_row(bench: Bench, row: Row, runs: int) -> dict[str, Any]:
    """All tools in turn, `runs` times after one run for memory; a tool that fails is left out."""
    _say(row.title)
    names = [name for name in row.tools if name in bench.tools]
    timed: dict[str, list[Sample]] = {name: [] for name in names}
    watched: dict[str, Sample] = {}
    failed: dict[str, str] = {}
    bench.context.mkdir()
    try:
        for name in row.bases:
            bench.offer(name, names)
        row.prepare(bench)
    except BenchError as error:
        _say(str(error))
        failed = dict.fromkeys(names, _reason(error))
    for number in range(-1, runs):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:  # no tool always runs after the same one
            tool = bench.tools[name]
            if name in failed:
                continue
            try:
                if number < 0:
                    row.warm(bench, tool)
                    watched[name] = row.sample(bench, tool, memory=True)
                else:
                    timed[name].append(row.sample(bench, tool, memory=False))
            except BenchError as error:
                _say(f"{name}: {error}")
                failed[name] = _reason(error)
    medians = {
        name: summary(samples, watched.get(name))
        for name, samples in timed.items()
        if samples and name not in failed
    }
    goals = [table.judge(medians, target) for target in row.goals(bench)]
    shutil.rmtree(bench.context)
    for name in watched:  # the others have not got so far
        row.after(bench, bench.tools[name])
    samples = [sample for name in medians for sample in timed[name]]
    walls = sum(sample["wall"] for sample in samples)
    return {
        "title": row.title,
        "others": sum(sample["other"] for sample in samples) / walls if walls else 0.0,
        "medians": medians,
        "samples": {name: timed[name] for name in medians},
        "failed": failed,
        "goals": [goal for goal in goals if goal],
    }


def _reason(error: BenchError) -> str:
    """What a tool's messages end in; hints do not say what went wrong."""
    lines = [line for line in str(error).splitlines() if line.strip() and "hint:" not in line]
    return lines[-1]


def _measure_server(document: table.Document, *, quick: bool) -> None:
    _say(SERVER)
    missing = server.missing_programs()
    if missing:
        document["absent"][SERVER] = f"not installed: {', '.join(missing)}"
    else:
        document["server"] = server.measures(*((1, 50) if quick else (2, 200)))


def _machine(work: Path) -> dict[str, Any]:
    info = Path("/proc/cpuinfo").read_text()
    models = [line.split(": ", 1)[1] for line in info.splitlines() if line.startswith("model name")]
    words = ["findmnt", "-n", "-o", "FSTYPE", "--target", str(work)]
    kinds = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
    return {
        "cpus": os.cpu_count(),
        "model": models[0] if models else platform.machine(),
        "kernel": os.uname().release,
        "memory_gib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30),
        "filesystem": kinds[-1] if kinds else "an unknown filesystem",
    }


def _clear(work: Path) -> None:
    """Remove all stores, and what a killed tool left mounted there."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{work}/")), reverse=True):
        subprocess.run(["umount", "-l", mount], check=False)
    shutil.rmtree(work, ignore_errors=True)


def _say(words: str) -> None:
    print(f"# {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
