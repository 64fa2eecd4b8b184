# SPDX-License-Identifier: Apache-2.0
"""Measures commands from outside: wall and CPU seconds, and memory, of a process and all it starts.

CPU seconds are those of the command, of every child that was waited for (wait4), of orphans it left
behind (this process adopts them and waits until they have ended), and of the tool's daemon with the
daemon's children (read from the kernel's clocks before and after). Memory is sampled in a run of
its own, because reading /proc takes time from two cores.
"""

from __future__ import annotations

import contextlib
import ctypes
import marshal
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_ORPHANS_S = 30.0
_SAMPLE_S = 0.005
_QUIET_S = 0.03

# A process's peak memory begins with that of the one that spawned it (the kernel keeps it over an
# exec), so commands are spawned by this interpreter without any imports, of 9 MiB.
_SPAWNER = """
import marshal, posix, sys, time
while True:
    try:
        argv, env, errors = marshal.load(sys.stdin.buffer)
    except EOFError:
        break
    null = (posix.O_RDWR, 0o600)
    files = [(posix.POSIX_SPAWN_OPEN, fd, "/dev/null", *null) for fd in (0, 1)]
    files.append((posix.POSIX_SPAWN_OPEN, 2, errors, posix.O_WRONLY | posix.O_TRUNC, 0o600))
    begin = time.monotonic()
    pid = posix.posix_spawnp(argv[0], argv, env, file_actions=files)
    _, status, usage = posix.wait4(pid, 0)
    wall = time.monotonic() - begin
    found = (status, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
    sys.stdout.buffer.write(marshal.dumps(found))
    sys.stdout.buffer.flush()
"""

# what one run took: wall, cpu, peak (largest process), other (others' CPU); tree, size in some
Sample = dict[str, float]


class BenchError(Exception):
    """A command that was to be measured failed."""


def adopt_orphans() -> None:
    """Make this process the parent of what its descendants leave behind."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def processes() -> dict[int, tuple[int, float]]:
    """pid -> (parent, CPU seconds of children that were waited for)."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:  # it has ended
            continue
        waited = (int(fields[13]) + int(fields[14])) * _TICK
        found[int(name)] = (int(fields[1]), waited)
    return found


def tree(root: int, table: Mapping[int, tuple[int, float]]) -> Iterator[int]:
    """`root` and its descendants."""
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    todo = [root]
    while todo:
        pid = todo.pop()
        if pid in table:
            yield pid
        todo += children.get(pid, ())


def cpu_of(pid: int) -> float:
    """CPU seconds of a running process's threads, those that have ended too; 0 if it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # its CPU clock, as clock_getcpuclockid(3) says
    except OSError:
        return 0.0


def proportional_mib(pid: int) -> float:
    """Resident MiB, of pages that several processes share a part each; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) / 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0.0


def busy_seconds() -> float:
    """CPU seconds that this machine has been busy since it started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) * _TICK


class Daemon:
    """A server that runs while the benchmark does; its output goes to `log`."""

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self.name = argv[0]
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env
            )
        self.pid = self._process.pid

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Raises: BenchError: it ended, or is not ready after a minute."""
        deadline = time.monotonic() + 60
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = self._log.read_text(errors="replace")[-2000:]
                raise BenchError(f"{self.name} did not start:\n{text}")
            time.sleep(0.1)

    def cpu(self) -> float:
        """CPU seconds so far, children included."""
        table = processes()
        return sum(cpu_of(pid) + table[pid][1] for pid in tree(self.pid, table))

    def stop(self) -> None:
        """End it by its pid, with SIGKILL to its tree if it does not end in 30 s."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            for pid in list(tree(self.pid, processes())):
                os.kill(pid, signal.SIGKILL)
            self._process.wait()


class Runner:
    """Runs commands, measured or not. `daemons` are the servers that are no one's orphans."""

    def __init__(self, work: Path) -> None:
        adopt_orphans()
        self.daemons: list[Daemon] = []
        self._errors = work / "errors"
        self._errors.touch()
        self._spawner = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _SPAWNER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def start(
        self, argv: Sequence[str], log: Path, ready: Callable[[], bool], env: Mapping[str, str]
    ) -> Daemon:
        """A daemon that runs until `close`; one that does not get ready is stopped."""
        daemon = Daemon(argv, log, env)
        self.daemons.append(daemon)
        try:
            daemon.wait_until(ready)
        except BenchError:
            self.daemons.remove(daemon)
            daemon.stop()
            raise
        return daemon

    def close(self) -> None:
        """Stop the daemons, and with SIGKILL what still runs when a signal ended the benchmark."""
        while self.daemons:
            self.daemons.pop().stop()
        table = processes()
        for root in self.started(table):
            for pid in tree(root, table):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._spawner.kill()
        self._spawner.communicate()

    def run(self, argv: Sequence[str], env: Mapping[str, str]) -> str:
        """The output of a command that is not measured."""
        done = subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        self._drain()
        if done.returncode != 0:
            raise BenchError(
                f"{' '.join(argv)} failed:\n{done.stdout[-1000:]}{done.stderr[-3000:]}"
            )
        return done.stdout

    def measure(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        daemon: Daemon | None = None,
        memory: bool = False,
    ) -> Sample:
        """What one run of `argv` took; with `memory`, also the peak of its whole tree."""
        sampler = _Sampler(self, daemon) if memory else None
        daemon_cpu = _settled(daemon) if daemon else 0.0
        busy = busy_seconds()
        try:
            status, wall, cpu, peak = self._spawn(argv, env)
            orphans_cpu, orphans_peak = self._drain()
            cpu += orphans_cpu
            if daemon:
                cpu += _settled(daemon) - daemon_cpu
        finally:
            tree_peak = sampler.stop() if sampler else 0.0
        if status != 0:
            text = self._errors.read_text(errors="replace")[-3000:]
            raise BenchError(f"{' '.join(argv)} failed:\n{text}")
        sample = {"wall": wall, "cpu": cpu, "peak": max(peak, orphans_peak)}
        sample["other"] = max(0.0, busy_seconds() - busy - cpu)
        if sampler:
            sample["tree"] = max(tree_peak, sample["peak"])
        return sample

    def _spawn(
        self, argv: Sequence[str], env: Mapping[str, str]
    ) -> tuple[int, float, float, float]:
        """Wait status, wall seconds, CPU seconds and peak MiB of a command and what it waited for."""
        assert self._spawner.stdin is not None
        assert self._spawner.stdout is not None
        self._spawner.stdin.write(marshal.dumps((list(argv), dict(env), str(self._errors))))
        self._spawner.stdin.flush()
        try:
            return marshal.load(self._spawner.stdout)
        except EOFError:
            raise BenchError(f"{argv[0]} could not be started") from None

    def started(self, table: Mapping[int, tuple[int, float]]) -> list[int]:
        """The command that runs, and orphans."""
        return [
            *(pid for pid, (parent, _) in table.items() if parent == self._spawner.pid),
            *self._orphans(table),
        ]

    def _orphans(self, table: Mapping[int, tuple[int, float]]) -> list[int]:
        """Children of this process that are neither daemons nor the spawner."""
        kept = {self._spawner.pid, *(daemon.pid for daemon in self.daemons)}
        me = os.getpid()
        return [pid for pid, (parent, _) in table.items() if parent == me and pid not in kept]

    def _drain(self) -> tuple[float, float]:
        """Wait for all orphans: their CPU seconds and the largest one's MiB."""
        cpu = peak = 0.0
        deadline = time.monotonic() + _ORPHANS_S
        while orphans := self._orphans(processes()):
            for pid in orphans:
                ended, _, usage = os.wait4(pid, os.WNOHANG)
                if ended:
                    cpu += usage.ru_utime + usage.ru_stime
                    peak = max(peak, usage.ru_maxrss / 1024)
            if time.monotonic() > deadline:
                raise BenchError(f"processes were left behind: {orphans}")
            time.sleep(0.002)
        return cpu, peak


class _Sampler:
    """The peak sum of memory of what the runner started, and of `daemon`, until stopped."""

    def __init__(self, runner: Runner, daemon: Daemon | None) -> None:
        self._runner = runner
        self._daemon = daemon
        self._peak = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def _sample(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            table = processes()
            roots = self._runner.started(table)
            if self._daemon:
                roots.append(self._daemon.pid)
            members = [pid for root in roots for pid in tree(root, table)]
            self._peak = max(self._peak, sum(proportional_mib(pid) for pid in members))

    def stop(self) -> float:
        self._over.set()
        self._thread.join()
        return self._peak


def _settled(daemon: Daemon) -> float:
    """The daemon's CPU seconds once it has nothing left to do for the last command (1 s at most)."""
    now = daemon.cpu()
    for _ in range(30):
        before = now
        time.sleep(_QUIET_S)
        now = daemon.cpu()
        if now - before < 0.002:
            break
    return now


def total(samples: Sequence[Sample]) -> Sample:
    """Commands that ran one after the other, as one."""
    together = {key: sum(sample[key] for sample in samples) for key in ("wall", "cpu", "other")}
    together["peak"] = max(sample["peak"] for sample in samples)
    if all("tree" in sample for sample in samples):
        together["tree"] = max(sample["tree"] for sample in samples)
    return together


def summary(timed: Sequence[Sample], watched: Sample | None) -> Sample:
    """Medians of the timed runs, the least wall and CPU, and the memory of the watched run."""
    found = {
        key: statistics.median(sample[key] for sample in timed) for key in timed[0] if key != "tree"
    }
    for key in ("wall", "cpu"):
        found[f"{key}_min"] = min(sample[key] for sample in timed)
    found["wall_max"] = max(sample["wall"] for sample in timed)
    if watched and "tree" in watched:
        found["tree"] = watched["tree"]
    return found
