# SPDX-License-Identifier: Apache-2.0
"""When a container that ended is started again: Docker's restart policies (pure: no clock, no I/O).

A run that ended is followed by the next one after 100 ms, twice as long each time, up to a minute; a
run of ten seconds begins the series anew (moby, restartmanager). `stop`, `kill` and the like leave a
mark, which `Restarts` is told of: what was stopped by hand is never started again.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

FIRST_DELAY = 0.1  # seconds; moby, restartmanager: defaultTimeout
LAST_DELAY = 60.0  # maxRestartTimeout
LONG_RUN = 10.0  # seconds after which the delay is the first one again
NAMES = ("no", "always", "unless-stopped", "on-failure")


class RestartPolicy(Record):
    """One of `NAMES`; `max_retries` of on-failure, 0 for no limit."""

    name: str = "no"
    max_retries: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.max_retries}" if self.max_retries else self.name

    def wants(self, status: int, *, count: int) -> bool:
        """Whether a container that was restarted `count` times and ended with `status` runs again."""
        if self.name == "on-failure":
            return status != 0 and (not self.max_retries or count < self.max_retries)
        return self.name in {"always", "unless-stopped"}


def parse_policy(text: str) -> RestartPolicy:
    """The policy of `--restart`. Raises LaminaError of kind USAGE, in Docker's words."""
    name, colon, retries = text.partition(":")
    if colon and not name:
        raise _invalid("format: no policy provided before colon")
    digits = retries.removeprefix("-")
    if colon and not (digits.isascii() and digits.isdecimal()):
        raise _invalid("format: maximum retry count must be an integer")
    count = int(retries or "0")
    name = name or "no"
    if name not in NAMES:
        raise _invalid(
            f": unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if count and name != "on-failure":
        raise _invalid(": maximum retry count can only be used with 'on-failure'")
    if count < 0:
        raise _invalid(": maximum retry count cannot be negative")
    return RestartPolicy(name, count)


def _invalid(why: str) -> LaminaError:
    separator = "" if why.startswith(":") else " "
    return LaminaError(f"invalid restart policy{separator}{why}", kind=Kind.USAGE)


class Restarts:
    """The restarts of a container since it was started by hand."""

    def __init__(self) -> None:
        self.count = 0
        self._delay = 0.0

    def after(self, policy: RestartPolicy, status: int, *, seconds: float) -> float | None:
        """Seconds until the next run, after one of `seconds` that ended with `status`; None for none.

        The next run is counted.
        """
        if seconds >= LONG_RUN:
            self._delay = 0.0
        self._delay = min(self._delay * 2 or FIRST_DELAY, LAST_DELAY)
        if not policy.wants(status, count=self.count):
            return None
        self.count += 1
        return self._delay
