# SPDX-License-Identifier: Apache-2.0
"""Automatic garbage collection after a build: BuildKit's three limits, from the settings.

The cache may hold `reserved` whatever happens. Above it the least recently used goes while the
cache holds more than `max_used` or the disk has less than `min_free` (buildkitd.toml `gcpolicy`).
"""

from __future__ import annotations

import os

from lamina.errors import LaminaError
from lamina.events import Notice
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.app.settings import Settings
    from lamina.events import Emitter
    from lamina.store.ports import Store

PAUSE = 60.0  # seconds between two looks at the store, while enough of the disk is free
PATIENCE = 5.0  # seconds that a collection may take; the rest is left to the next
_CHECKED = "gc-checked"  # a file whose mtime says when the store was last looked at
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
          "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}  # fmt: skip


class Policy(Record):
    """The limits in bytes, and `max_age` in seconds (0: no limit); `mount_max_age` is that of cache
    mounts alone.
    """

    reserved: int
    max_used: int
    min_free: int
    max_age: float = 0.0
    mount_max_age: float = 0.0


def policy_of(settings: Settings, disk_bytes: int) -> Policy:
    """The limits in force on a disk of this size. Raises LaminaError of kind INVALID."""
    return Policy(
        parse_space(settings.gc_reserved_space, disk_bytes, "gc-reserved-space"),
        parse_space(settings.gc_max_used_space, disk_bytes, "gc-max-used-space"),
        parse_space(settings.gc_min_free_space, disk_bytes, "gc-min-free-space"),
        parse_age(settings.gc_max_age) if settings.gc_max_age else 0.0,
        parse_age(settings.gc_cache_mount_max_age) if settings.gc_cache_mount_max_age else 0.0,
    )


def collect_after_build(
    store: Store, settings: Settings, *, clock: Callable[[], float], emit: Emitter
) -> None:
    """Bring the build cache within its limits, at most for `PATIENCE` seconds. Never raises for
    what the store or the disk refuses: a notice says so.
    """
    try:
        _collect(store, settings, clock=clock, emit=emit)
    except (LaminaError, OSError) as error:
        emit(Notice(f"the build cache was not cleaned up: {error}"))


def _collect(
    store: Store, settings: Settings, *, clock: Callable[[], float], emit: Emitter
) -> None:
    if settings.gc == "off":
        return
    disk = os.statvfs(store.root)
    free = disk.f_bavail * disk.f_frsize
    policy = policy_of(settings, disk.f_blocks * disk.f_frsize)
    now = clock()
    if free >= policy.min_free and not _is_due(store, now):
        return
    from lamina.store.eviction import Limits, cache_usage, choose
    from lamina.store.gc import GcBusy, collect
    from lamina.store.local import LocalStore

    assert isinstance(store, LocalStore)
    usage = cache_usage(store)
    held = usage.bytes
    gone = None
    if held > policy.reserved and (held > policy.max_used or free < policy.min_free):
        keep = max(policy.reserved, min(policy.max_used, held - max(0, policy.min_free - free)))
        gone = choose(usage, Limits(keep_bytes=keep), free_bytes=free)
    for age, mounts_only in ((policy.max_age, False), (policy.mount_max_age, True)):
        if age:
            limits = Limits(unused_since=now - age, mounts_only=mounts_only)
            old = choose(usage, limits, free_bytes=free)
            gone = old if gone is None else gone.united(old)
    if gone is None or not (gone.keys or gone.mounts):
        return
    try:
        freed = collect(store, evict=gone, deadline=now + PATIENCE, emit=emit).bytes
    except GcBusy:
        return  # it is being done
    emit(Notice(f"build cache: {len(gone.ids)} old entries removed, {freed} bytes freed"))


def _is_due(store: Store, now: float) -> bool:
    path = os.path.join(store.root, "locks", _CHECKED)
    try:
        if 0 <= now - os.stat(path).st_mtime < PAUSE:
            return False
    except FileNotFoundError:
        pass
    with open(path, "ab"):
        os.utime(path, (now, now))
    return True


def parse_space(text: str, disk_bytes: int, key: str) -> int:
    """Bytes of `10GB`, `512MiB`, or `20%` of the disk. Raises LaminaError of kind INVALID."""
    from lamina.errors import Kind

    word = text.strip().lower()
    try:
        if word.endswith("%"):
            share = float(word[:-1])
            if not 0 <= share <= 100:
                raise ValueError(text)
            return int(disk_bytes * share / 100)
        number = word.rstrip("abcdefghijklmnopqrstuvwxyz ")
        size = int(float(number) * _UNITS[word[len(number) :].strip()])
    except (ValueError, KeyError, OverflowError) as error:
        raise LaminaError(
            f"{key}: {text!r} is not a size (10GB, 512MiB or 20%)", kind=Kind.INVALID
        ) from error
    if size < 0:
        raise LaminaError(f"{key}: {text!r} is negative", kind=Kind.INVALID)
    return size


def parse_age(text: str) -> float:
    """Seconds of a Go duration (`24h`, `1h30m`) or of days (`7d`). Raises kind INVALID."""
    import re

    from lamina.errors import Kind

    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise LaminaError(f"{text!r} is not a duration (24h, 1h30m, 7d)", kind=Kind.INVALID)
    seconds = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    return sum(float(number) * seconds[unit] for number, unit in parts)
