# SPDX-License-Identifier: Apache-2.0
"""Values as Docker's flags write them: sizes, host entries, times."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}  # go-units RAM


def parse_size(text: str, flag: str) -> int:
    """Bytes of `64m`, `1.5g`, `1024`, `2GiB`. Raises LaminaError of kind USAGE."""
    lowered = text.strip().lower()
    for ending in ("ib", "b"):
        if len(lowered) > len(ending) and lowered.endswith(ending) and not lowered[-2:-1].isdigit():
            lowered = lowered[: -len(ending)]
            break
    unit = lowered[-1:] if lowered[-1:].isalpha() else ""
    number = lowered[: len(lowered) - len(unit)].strip()
    try:
        if not number.isascii() or "_" in number:  # which Python's float takes
            raise ValueError(number)
        size = int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError) as error:
        raise LaminaError(
            f'invalid argument "{text}" for "{flag}" flag: not a size',
            kind=Kind.USAGE,
            hint="write a number with b, k, m or g",
        ) from error
    if size < 0:
        raise LaminaError(f'invalid argument "{text}" for "{flag}" flag: negative', kind=Kind.USAGE)
    return size


def host_entries(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """`NAME:ADDRESS` or `NAME=ADDRESS` of --add-host; the address is not checked for being real.

    Raises:
        LaminaError: kind USAGE.
    """
    entries = []
    for text in texts:
        separator = "=" if "=" in text else ":"
        name, found, address = text.partition(separator)
        address = address.removeprefix("[").removesuffix("]")
        if not found or not name or not _is_address(address):
            raise LaminaError(
                f'invalid argument "{text}" for "--add-host" flag: expected NAME:ADDRESS',
                kind=Kind.USAGE,
            )
        entries.append((name, address))
    return tuple(entries)


def parse_epoch(text: str) -> int | None:
    """SOURCE_DATE_EPOCH in POSIX seconds; None if empty. Raises LaminaError of kind USAGE."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise LaminaError(
            f"SOURCE_DATE_EPOCH must be a number of seconds, not {text!r}", kind=Kind.USAGE
        )
    return int(text)


def _is_address(text: str) -> bool:
    if text == "host-gateway":
        return True
    import ipaddress

    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
