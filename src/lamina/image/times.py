# SPDX-License-Identifier: Apache-2.0
"""RFC 3339 times, as configs and annotations hold them. Pure."""

from __future__ import annotations

from lamina.start.pattern import ASCII, pattern

_DAYS_TO_1970 = 719_468  # from 0000-03-01, the era's origin in days_from_civil
_RFC3339 = pattern(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)", ASCII
)


def format_time(seconds: float) -> str:
    """POSIX seconds as RFC 3339 in UTC, with a fraction only if there is one (Go's RFC3339Nano)."""
    whole = int(seconds // 1)
    nanoseconds = round((seconds - whole) * 1_000_000) * 1000
    days, rest = divmod(whole, 86_400)
    year, month, day = _civil(days)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    fraction = f".{nanoseconds:09d}".rstrip("0").rstrip(".") if nanoseconds else ""
    return f"{year:04d}-{month:02d}-{day:02d}T{clock}{fraction}Z"


def parse_time(text: str) -> float | None:
    """POSIX seconds of an RFC 3339 text; None if it is not one (images hold anything there)."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        return None
    offset = 0
    if match[8] not in {"Z", "z"}:
        sign = -1 if match[8][0] == "-" else 1
        offset = sign * (int(match[8][1:3]) * 3600 + int(match[8][4:6]) * 60)
    seconds = _days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset
    return seconds + float(match[7] or 0)


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 (Howard Hinnant, chrono-Compatible Low-Level Date Algorithms)."""
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return (
        era * 146_097
        + year_of_era * 365
        + year_of_era // 4
        - year_of_era // 100
        + day_of_year
        - _DAYS_TO_1970
    )


def _civil(days: int) -> tuple[int, int, int]:
    """(year, month, day) of days since 1970-01-01."""
    era, day_of_era = divmod(days + _DAYS_TO_1970, 146_097)
    year_of_era = (
        day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096
    ) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = shifted + (3 if shifted < 10 else -9)
    return year_of_era + era * 400 + (month <= 2), month, day_of_year - (153 * shifted + 2) // 5 + 1
