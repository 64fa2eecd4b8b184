# SPDX-License-Identifier: Apache-2.0
"""The `--health-*` flags, as docker/cli and moby read them."""

from __future__ import annotations

from lamina.dockerfile.values import InvalidValue, parse_duration
from lamina.errors import Kind, LaminaError
from lamina.spec.config import Healthcheck

_MINIMUM = 1_000_000  # nanoseconds; moby: container.MinimumDuration


def parse_health(
    command: str,
    interval: str,
    timeout: str,
    retries: str,
    start_period: str,
    start_interval: str,
    *,
    without: bool,
) -> Healthcheck:
    """The check that was asked for; what is empty is the image's, or the default.

    Raises LaminaError of kind USAGE.
    """
    asked = any((command, interval, timeout, retries, start_period, start_interval))
    if without and asked:
        raise LaminaError("--no-healthcheck conflicts with --health-* options", kind=Kind.USAGE)
    if without:
        return Healthcheck(test=("NONE",))
    return Healthcheck(
        test=("CMD-SHELL", command) if command else (),
        interval=_duration(interval, "--health-interval"),
        timeout=_duration(timeout, "--health-timeout"),
        start_period=_duration(start_period, "--health-start-period"),
        start_interval=_duration(start_interval, "--health-start-interval"),
        retries=_retries(retries),
    )


def _duration(text: str, flag: str) -> int:
    if not text:
        return 0
    try:
        found = parse_duration(text)
    except InvalidValue as error:
        raise _invalid(text, flag, error.what) from error
    if found < 0:
        raise LaminaError(f"{flag} cannot be negative", kind=Kind.USAGE)
    if 0 < found < _MINIMUM:
        raise LaminaError(f"{flag} cannot be less than 1ms", kind=Kind.USAGE)
    return found


def _retries(text: str) -> int:
    digits = text.removeprefix("-")
    if text and not (digits.isascii() and digits.isdecimal() and len(digits) < 10):
        raise _invalid(text, "--health-retries", "not a number")
    if text.startswith("-"):
        raise LaminaError("--health-retries cannot be negative", kind=Kind.USAGE)
    return int(text or "0")


def _invalid(text: str, flag: str, why: str) -> LaminaError:
    return LaminaError(f'invalid argument "{text}" for "{flag}" flag: {why}', kind=Kind.USAGE)
