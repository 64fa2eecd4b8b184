# SPDX-License-Identifier: Apache-2.0
"""The health check that a program asks a container for, as the value of `RunOptions.health`."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.spec.config import Healthcheck

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["health_check"]

_LEAST = 0.001  # seconds; moby, daemon/container.go


def health_check(
    command: Sequence[str] | str = "",
    *,
    interval: float = 0,
    timeout: float = 0,
    start_period: float = 0,
    start_interval: float = 0,
    retries: int = 0,
) -> Healthcheck:
    """A check by a command: a text is for the image's shell, a list is run as it is. Times are seconds.
    What is empty or 0 is the image's, or Docker's default.

    Raises:
        LaminaError: USAGE for a time below a millisecond, or a negative number.
    """
    times = (interval, timeout, start_period, start_interval)
    if any(time and time < _LEAST for time in times) or retries < 0:
        raise LaminaError(
            "times of a health check cannot be less than 1ms, and retries not negative",
            kind=Kind.USAGE,
        )
    test = ("CMD-SHELL", command) if isinstance(command, str) else ("CMD", *command)
    found = [round(time * 10**9) for time in times]  # nanoseconds
    return Healthcheck(
        test if command else (), found[0], found[1], found[2], found[3], retries=retries
    )
