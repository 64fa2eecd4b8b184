# SPDX-License-Identifier: Apache-2.0
"""What probes make of a container's health, and when the next is due (no clock, no processes).

| status    | a probe succeeds | a probe fails                                             |
|-----------|------------------|-----------------------------------------------------------|
| starting  | healthy          | within the start period: nothing; else as healthy         |
| healthy   | streak 0         | streak + 1; unhealthy when it has reached the retries     |
| unhealthy | healthy          | streak + 1                                                |

Source: moby, daemon/health.go. Times are seconds since the container's start, but for `Result`.
"""

from __future__ import annotations

import os

from lamina.container.logs import format_time
from lamina.start.jsontext import dumps, loads
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.spec.config import Healthcheck

HEALTH_FILE = "health.json"  # of the container's directory, in the form of `docker inspect`
STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
MAX_OUTPUT = 4096  # bytes of a probe's output that are kept
MAX_RESULTS = 5
TOO_LONG = -1  # the exit code of a probe that did not end by itself
_SECOND = 1_000_000_000
_INTERVAL, _TIMEOUT, _START_INTERVAL, _RETRIES = 30 * _SECOND, 30 * _SECOND, 5 * _SECOND, 3


class Result(Record):
    """One probe: times in POSIX nanoseconds, what it wrote to both streams."""

    start: int
    end: int
    exit_code: int
    output: str


def command_of(check: Healthcheck, shell: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The probe's argument vector; empty if the container has none."""
    kind, *words = check.test or ("NONE",)
    if kind == "CMD":
        return tuple(words)
    if kind == "CMD-SHELL" and words:
        return (*(shell or ("/bin/sh", "-c")), *words)
    return ()


def kept_output(data: bytes, *, is_cut: bool) -> str:
    """The output of a probe as it is kept."""
    text = data[:MAX_OUTPUT].decode("utf-8", "replace")
    return text + "..." if is_cut or len(data) > MAX_OUTPUT else text


class Health:
    """The health of a container since its start. `log` are the results of earlier runs."""

    def __init__(self, check: Healthcheck, *, log: list[dict[str, object]]) -> None:
        self._check = check
        self._log = log
        self.status = STARTING
        self.streak = 0

    @property
    def time_limit(self) -> float:
        """Seconds that a probe may take."""
        return (self._check.timeout or _TIMEOUT) / _SECOND

    def interval(self, now: float) -> float:
        """Seconds to wait before the next probe."""
        if self.status == STARTING and now < self._start_period:
            return (self._check.start_interval or _START_INTERVAL) / _SECOND
        return (self._check.interval or _INTERVAL) / _SECOND

    def take(self, result: Result, *, begun: float) -> bool:
        """Take in the result of a probe that began at `begun`; whether the status changed."""
        before = self.status
        entry: dict[str, object] = {
            "Start": format_time(result.start),
            "End": format_time(result.end),
            "ExitCode": result.exit_code,
            "Output": result.output,
        }
        self._log = [*self._log, entry][-MAX_RESULTS:]
        if result.exit_code == 0:
            self.status, self.streak = HEALTHY, 0
        elif self.status != STARTING or begun >= self._start_period:
            self.streak += 1
            if self.streak >= (self._check.retries or _RETRIES):
                self.status = UNHEALTHY
        return self.status != before

    @property
    def _start_period(self) -> float:
        return self._check.start_period / _SECOND

    def document(self) -> dict[str, object]:
        """What `docker inspect` shows of it."""
        return {"Status": self.status, "FailingStreak": self.streak, "Log": self._log}


def write_health(directory: str, health: Health) -> None:
    """Replace the file that others read. It is not flushed: it tells of a process, which is gone
    when the host goes down; a full disk costs this result.
    """
    aside = f"{directory}/{HEALTH_FILE}.new"
    try:
        with open(aside, "w", encoding="utf-8") as file:
            file.write(dumps(health.document()))
        os.rename(aside, f"{directory}/{HEALTH_FILE}")
    except OSError:
        return


def read_health(directory: str) -> dict[str, object] | None:
    """What was written last; None if there is no health check, or it never ran."""
    try:
        with open(f"{directory}/{HEALTH_FILE}", encoding="utf-8") as file:
            document = loads(file.read())
    except (FileNotFoundError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def earlier_results(directory: str) -> list[dict[str, object]]:
    """The results of earlier runs, which Docker keeps over a restart."""
    log = (read_health(directory) or {}).get("Log")
    return [entry for entry in log if isinstance(entry, dict)] if isinstance(log, list) else []
