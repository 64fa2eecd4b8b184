# SPDX-License-Identifier: Apache-2.0
"""Runs a container's health checks beside its monitor's other work, in the monitor's loop.

One probe at a time: a process of the runtime's `exec`, whose output comes through a pipe. One that takes
too long is killed with all it started: what descends from it, and what is in its session (it leads
one); a process that leaves both, as daemons do, is none of the probe's any more.
"""

from __future__ import annotations

import os
import time

from lamina.container import freezer, instance
from lamina.container.bundle import write_text
from lamina.container.errorlog import read_error
from lamina.container.health import (
    MAX_OUTPUT,
    TOO_LONG,
    Result,
    command_of,
    earlier_results,
    kept_output,
    write_health,
)
from lamina.container.health import Health as HealthOf
from lamina.container.keeping import become
from lamina.container.runtime import find_runtime
from lamina.dockerfile.values import format_duration
from lamina.errors import LaminaError
from lamina.start.jsontext import dumps
from lamina.start.lowlevel import signal
from lamina.system.paths import unlink_if_there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.container.host import Runtime
    from lamina.container.state import ContainerConfig
    from lamina.spec.config import Healthcheck

_BLOCK = 64 * 1024
_START_LIMIT = 30.0  # seconds for the runtime to start a probe (moby, daemon/health.go)
_PF_EXITING = 0x4  # linux/sched.h
_PROCESS, _PID, _LOG = "probe.json", "probe.pid", "probe.log"


class Prober:
    """The health checks of one run of a container. `tell` is told of each new status."""

    def __init__(
        self,
        root: str,
        id: str,
        config: ContainerConfig,
        check: Healthcheck,
        *,
        first_pid: int,
        directory: str,
        runtime: str,
        tell: Callable[[str], object],
        clock: Callable[[], int],
    ) -> None:
        self._root = root
        self._id = id
        self._config = config
        self._command = command_of(check)
        self._first_pid = first_pid
        self._directory = directory
        self._runtime = runtime
        self._found: Runtime | None = None
        self._tell = tell
        self._clock = clock
        self._started = time.monotonic()
        self._health = HealthOf(check, log=earlier_results(directory))
        self._due = self._started + self._health.interval(0.0)
        self._forget_probe()
        write_health(directory, self._health)

    def _forget_probe(self) -> None:
        self.pid = 0  # of the runtime's process, our child
        self.descriptor = -1  # what the probe writes; -1 without a probe
        self._begun = 0.0
        self._start = 0  # POSIX nanoseconds
        self._limit = 0.0  # when it will have taken too long
        self._output = b""
        self._is_cut = False
        self._was_killed = False
        self._is_moot = False  # nobody asks for its result

    def seconds(self) -> float | None:
        """How long `act` has nothing to do; None: until the probe that was killed has ended."""
        if self._was_killed:
            return None
        return max(0.0, (self._limit if self.pid else self._due) - time.monotonic())

    def act(self) -> None:
        """Begin the probe that is due, or end the one that takes too long."""
        if self._was_killed or time.monotonic() < (self._limit if self.pid else self._due):
            return
        if self.pid:
            self._end_slow()
        elif freezer.is_frozen(self._first_pid, self._id):
            self._postpone()
        else:
            self._begin()

    def read(self) -> None:
        """Take what the probe has written; what is too much is dropped."""
        try:
            data = os.read(self.descriptor, _BLOCK)
        except BlockingIOError:
            return
        if not data:
            self._close_output()
            return
        room = MAX_OUTPUT - len(self._output)
        self._output += data[:room]
        self._is_cut = self._is_cut or len(data) > room

    def ended(self, status: int) -> None:
        """The probe's process has ended, with a wait status."""
        while self.descriptor >= 0 and self._has_more():
            pass
        self._close_output()
        if self._is_moot or _is_ending(self._first_pid):  # then it was killed with the container
            self._forget_probe()
            self._postpone()
            return
        code = os.waitstatus_to_exitcode(status)
        output = kept_output(self._output, is_cut=self._is_cut)
        message = read_error(f"{self._directory}/{_LOG}") if code else ""
        if "paused" in message:  # between the look at the freezer and the runtime's own
            self._forget_probe()
            self._postpone()
            return
        if self._was_killed:
            code, output = TOO_LONG, _too_long(self._health.time_limit, output)
        elif message:  # the runtime's, which could not start it
            code, output = TOO_LONG, message
        elif code < 0:
            code = 128 - code
        self._take(code, output)

    def close(self) -> None:
        """The container has ended: end the probe, whose result nobody needs."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)  # our child, not waited for: nobody else has its pid
            os.waitpid(self.pid, 0)
        self._close_output()
        self._forget_probe()

    def _begin(self) -> None:
        self._forget_probe()
        self._begun = time.monotonic()
        self._start = self._clock()
        self._limit = self._begun + self._health.time_limit
        try:
            argv = self._arguments()
            self.descriptor, theirs = os.pipe2(os.O_CLOEXEC)
        except (LaminaError, OSError) as error:
            self._take(TOO_LONG, str(error))
            return
        os.set_blocking(self.descriptor, False)
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            become(argv, theirs, parent)
        os.close(theirs)

    def _arguments(self) -> list[str]:
        if self._found is None:
            self._found = find_runtime(self._root, override=self._runtime)
        runtime = self._found
        request = instance.ExecRequest(command=self._command)
        document = instance.exec_process(self._config, request, runtime, pid=self._first_pid)
        for name in (_PID, _LOG):
            unlink_if_there(f"{self._directory}/{name}")
        write_text(f"{self._directory}/{_PROCESS}", dumps(document))
        return instance.exec_command(
            runtime,
            self._id,
            directory=self._directory,
            process=f"{self._directory}/{_PROCESS}",
            log=f"{self._directory}/{_LOG}",
            more=("--pid-file", f"{self._directory}/{_PID}"),
        )

    def _has_more(self) -> bool:
        before = len(self._output), self._is_cut
        self.read()
        return self.descriptor >= 0 and before != (len(self._output), self._is_cut)

    def _close_output(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _end_slow(self) -> None:
        """Kill the probe, unless it began only after its runtime's process did."""
        path = f"{self._directory}/{_PID}"
        try:
            started = os.stat(path).st_mtime_ns
        except FileNotFoundError:  # the time that the runtime needs is not the probe's
            if time.monotonic() < self._begun + _START_LIMIT:
                self._limit = time.monotonic() + min(self._health.time_limit, 1.0)
                return
        else:
            left = started / 1e9 + self._health.time_limit - self._clock() / 1e9
            if 0 < left < self._health.time_limit:
                self._limit = time.monotonic() + left
                return
            kill_probe(path, first_pid=self._first_pid)
        self._is_moot = freezer.is_frozen(self._first_pid, self._id)  # it had no time
        self._was_killed = True
        os.kill(self.pid, signal.SIGKILL)

    def _postpone(self) -> None:
        self._due = time.monotonic() + self._health.interval(time.monotonic() - self._started)

    def _take(self, code: int, output: str) -> None:
        result = Result(self._start, self._clock(), code, output)
        begun = self._begun - self._started
        self._forget_probe()
        changed = self._health.take(result, begun=begun)
        write_health(self._directory, self._health)
        if changed:
            self._tell(self._health.status)
        self._postpone()


def _too_long(limit: float, output: str) -> str:
    text = f"Health check exceeded timeout ({format_duration(round(limit * 1e9))})"
    return f"{text}: {output}" if output else text


def kill_probe(pid_file: str, *, first_pid: int) -> None:
    """Kill the process that the file names and all it started, in the container of `first_pid`."""
    try:
        with open(pid_file, encoding="ascii") as file:
            pid = int(file.read())
        space = os.readlink(f"/proc/{first_pid}/ns/pid")
    except (OSError, ValueError):
        return
    killed: set[int] = set()
    while True:
        found = [
            (number, started)
            for number, started in _family({pid, *killed}, session=pid)
            if number not in killed and _lives_in(number, space)
        ]
        if not found:  # who has a SIGKILL before it starts no more
            return
        for number, started in found:  # first all stand still, so that none starts another unseen
            instance.send_signal(number, signal.SIGSTOP, started=started)
        for number, started in found:
            killed.add(number)
            instance.send_signal(number, signal.SIGKILL, started=started)


def _family(roots: set[int], *, session: int) -> list[tuple[int, int]]:
    """(pid, start time) of living processes among `roots`, their descendants, or of the session."""
    rows: dict[int, tuple[int, int, int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            row = _row(int(name))
            if row is not None:
                rows[int(name)] = row
    found = {pid for pid, row in rows.items() if pid in roots or row[1] == session}
    grew = True
    while grew:
        more = {pid for pid, row in rows.items() if row[0] in found} - found
        found |= more
        grew = bool(more)
    return [(pid, rows[pid][2]) for pid in sorted(found)]


def _is_ending(pid: int) -> bool:
    """Whether the process has ended, or is in its end: a first process kills the others, and waits
    for them, before it is a zombie. proc(5), /proc/pid/stat, flags.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return fields[0] in {b"Z", b"X"} or bool(int(fields[6]) & _PF_EXITING)


def _row(pid: int) -> tuple[int, int, int] | None:
    """(parent, session, start time) of a process; None if it has ended. proc(5), /proc/pid/stat."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if not fields or fields[0] in {b"Z", b"X"}:
        return None
    return int(fields[1]), int(fields[3]), int(fields[19])


def _lives_in(pid: int, space: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == space
    except OSError:
        return False
