# SPDX-License-Identifier: Apache-2.0
"""Times whole lamina commands beside buildah and podman in the same run, and prints ratios.

    .venv/bin/python bench/run.py [--runs N] [WORKLOAD ...]

Wall and CPU seconds are of the whole process tree that was waited for; peak memory of its largest
process. Runs of the tools alternate. bench/README.md says how to read the table.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
LAMINA = Path(sys.executable).parent / "lamina"


class Tool:
    """One builder: how it makes a base image, builds, and runs."""

    def __init__(self, name: str, work: Path) -> None:
        self.name = name
        self.work = work
        self.env = dict(os.environ)
        conf = work / "containers.conf"
        # hosts without CAP_SYS_RESOURCE cannot raise hard limits, which podman does by default
        conf.write_text('[containers]\ndefault_ulimits = ["nofile=1024:1024"]\n')
        self.env["CONTAINERS_CONF"] = str(conf)
        self.env["LAMINA_ROOT"] = str(work / "lamina")
        storage = ["--root", str(work / "peer"), "--runroot", str(work / "peer-run")]
        self.podman = ["podman", *storage, "--runtime", "runc", "--cgroup-manager", "cgroupfs"]
        self.buildah = ["buildah", *storage]

    def load_base(self, archive: Path) -> None:
        if self.name == "lamina":
            self.run([str(LAMINA), "load", "-i", str(archive)])
        else:
            self.run([*self.podman, "load", "-i", str(archive)])

    def build(self, context: Path, *flags: str) -> list[str]:
        if self.name == "lamina":
            return [str(LAMINA), "build", "-t", "bench", *flags, str(context)]
        isolation = ["--isolation", "oci", "--runtime", "runc", "--network", "host"]
        flags = tuple(flag for flag in flags if flag != "--network=host")
        return [
            *self.buildah, "bud", "--layers", "--pull-never", *isolation, "-t", "bench", *flags,
            str(context),
        ]  # fmt: skip

    def run_true(self) -> list[str]:
        if self.name == "lamina":
            return [str(LAMINA), "run", "--rm", "--network=host", "busybox", "true"]
        return [*self.podman, "run", "--rm", "--network=host", "busybox", "true"]

    def run(self, argv: list[str]) -> None:
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"bench: {' '.join(argv)} failed:\n{done.stderr}")

    def measure(self, argv: list[str]) -> dict[str, float]:
        """Wall and CPU seconds and peak MiB of one run, children included."""
        begin = time.monotonic()
        process = subprocess.Popen(
            argv, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if status != 0:
            sys.exit(f"bench: {' '.join(argv)} failed:\n{errors.decode(errors='replace')}")
        return {
            "wall": wall,
            "cpu": usage.ru_utime + usage.ru_stime,
            "peak_mib": usage.ru_maxrss / 1024,
        }


def python_app(folder: Path) -> None:
    """Eight instructions, a context of 200 files."""
    for number in range(200):
        path = folder / f"pkg{number % 10}/module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"VALUE = {number}\n" * 40)
    (folder / "Dockerfile").write_text(
        "FROM busybox\nLABEL a=b\nENV X=1\nWORKDIR /app\nRUN echo deps > /deps\n"
        'COPY . /app\nEXPOSE 8000\nCMD ["sh"]\n'
    )


def steps(folder: Path) -> None:
    lines = "".join(f"RUN echo {number} > /f{number}\n" for number in range(20))
    (folder / "Dockerfile").write_text(f"FROM busybox\n{lines}")


def many_files(folder: Path) -> None:
    block = os.urandom(10_000)
    for number in range(20_000):
        path = folder / f"d{number % 200}/f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(number.to_bytes(8, "big") + block)
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY . /data\nRUN true\n")


def stages(folder: Path) -> None:
    text = "".join(f"FROM busybox AS s{n}\nRUN sleep 2 && echo {n} > /o{n}\n" for n in range(4))
    text += "FROM busybox\n" + "".join(f"COPY --from=s{n} /o{n} /\n" for n in range(4))
    (folder / "Dockerfile").write_text(text)


def nothing(folder: Path, number: int) -> None: ...


def edit(folder: Path, number: int) -> None:
    (folder / "pkg0/module0.py").write_text(f"VALUE = {number!r}  # {time.time_ns()}\n")


# name -> (writes the context, what happens before each run, flags, builds once first)
WORKLOADS: dict[
    str, tuple[Callable[[Path], None], Callable[[Path, int], None], tuple[str, ...], bool]
] = {
    "no-op rebuild, 200 files": (python_app, nothing, (), True),
    "one source file changed": (python_app, edit, (), True),
    "20 RUN steps": (steps, nothing, ("--no-cache", "--network=host"), False),
    "COPY of 20,000 files + RUN": (many_files, nothing, ("--no-cache", "--network=host"), False),
    "four stages of sleep 2": (stages, nothing, ("--no-cache", "--network=host"), False),
}
RUN_TRUE = "run --rm busybox true"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("workloads", nargs="*", help=f"of: {', '.join([*WORKLOADS, RUN_TRUE])}")
    arguments = parser.parse_args()
    place = os.environ.get("BENCH_DIR") or ("/dev/shm" if Path("/dev/shm").is_dir() else None)
    work = Path(tempfile.mkdtemp(prefix="lamina-bench-", dir=place))
    try:
        results = bench(work, arguments.runs, arguments.workloads or [*WORKLOADS, RUN_TRUE])
    finally:
        subprocess.run(["umount", "-q", str(work / "peer/overlay")], check=False)
        shutil.rmtree(work, ignore_errors=True)
    report(results)


def bench(work: Path, runs: int, names: list[str]) -> dict[str, dict[str, list[dict[str, float]]]]:
    tools = [Tool("lamina", work)]
    tools += [Tool("buildah", work)] if shutil.which("buildah") and shutil.which("podman") else []
    lamina = tools[0]
    lamina.run([str(LAMINA), "bootstrap", "busybox", "-t", "busybox:latest"])
    base = work / "base.tar"
    lamina.run([str(LAMINA), "save", "-o", str(base), "busybox:latest"])
    for tool in tools[1:]:
        tool.load_base(base)
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    for name in names:
        print(f"# {name}", file=sys.stderr)
        rows: dict[str, list[dict[str, float]]] = {tool.name: [] for tool in tools}
        context = work / "context"
        context.mkdir()
        if name != RUN_TRUE:
            write, before, flags, warm = WORKLOADS[name]
            write(context)
        for number in range(-1, runs):
            for tool in tools:
                if name == RUN_TRUE:
                    argv = tool.run_true()
                else:
                    if number >= 0 or not warm:
                        before(context, number)
                    argv = tool.build(context, *flags)
                measured = tool.measure(argv)
                if number >= 0:
                    rows[tool.name].append(measured)
        results[name] = rows
        shutil.rmtree(context)
    return results


def report(results: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    header = f"{'workload':<28} {'tool':<8} {'wall s':>8} {'cpu s':>8} {'MiB':>6} {'wall/peer':>10} {'cpu/peer':>9}"
    print(header)
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for name, rows in results.items():
        medians = {
            tool: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            for tool, runs in rows.items()
        }
        summary[name] = medians
        peer = medians.get("buildah")
        for tool, row in medians.items():
            ratios = ""
            if peer is not None and tool == "lamina":
                ratios = f"{row['wall'] / peer['wall']:>10.2f} {row['cpu'] / peer['cpu']:>9.2f}"
            print(
                f"{name:<28} {tool:<8} {row['wall']:>8.3f} {row['cpu']:>8.3f}"
                f" {row['peak_mib']:>6.0f} {ratios}"
            )
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    document = {
        "host": dict(
            zip(("system", "node", "release", "version", "machine"), os.uname(), strict=True)
        ),
        "cpus": os.cpu_count(),
        "page_size": resource.getpagesize(),
        "medians": summary,
        "runs": results,
    }
    del document["host"]["node"]  # type: ignore[attr-defined]  # a dict by construction
    (folder / f"{stamp}.json").write_text(json.dumps(document, indent=1))
    print(f"\nwritten to bench/results/{stamp}.json")


if __name__ == "__main__":
    main()
