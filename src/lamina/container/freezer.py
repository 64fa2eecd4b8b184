# SPDX-License-Identifier: Apache-2.0
"""A running container stopped and let go on by the kernel's freezer, which is asked and never guessed.

Its control group is read from /proc: v1's freezer hierarchy, or v2's own `cgroup.freeze`.
"""

from __future__ import annotations

import errno
import time

from lamina.errors import Kind, LaminaError

_V1 = "/sys/fs/cgroup/freezer"
_V2 = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
_PATIENCE = 10.0  # seconds for the kernel to stop every process
_PAUSE = 0.005


def is_frozen(pid: int, id: str) -> bool:
    """Whether the container `id`, whose first process is `pid`, is frozen; not without a freezer."""
    found = _control(pid, id)
    return found is not None and _is(found[0])


def freeze(pid: int, id: str) -> None:
    """Stop every process of the container; returns when all have stopped.

    Raises LaminaError: UNSUPPORTED where it has no control group, SYSTEM if the kernel cannot.
    """
    path, frozen, _ = _required(pid, id)
    _write(path, frozen)
    end = time.monotonic() + _PATIENCE
    while not _has_stopped(path):
        if time.monotonic() > end:
            thaw(pid, id)
            raise LaminaError(f"the processes of container {id[:12]} do not stop")
        time.sleep(_PAUSE)


def thaw(pid: int, id: str) -> None:
    """Let the container go on. Idempotent; nothing without a freezer."""
    found = _control(pid, id)
    if found is not None:
        _write(found[0], found[2])


def _required(pid: int, id: str) -> tuple[str, str, str]:
    found = _control(pid, id)
    if found is None:
        raise LaminaError(
            f"container {id[:12]} cannot be paused: it has no control group with a freezer",
            kind=Kind.UNSUPPORTED,
            hint="'lamina info' tells what was found on this host",
        )
    return found


def _control(pid: int, id: str) -> tuple[str, str, str] | None:
    """(file, text that freezes, text that thaws) of the group that is the container's alone."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except (FileNotFoundError, ProcessLookupError):
        return None
    for _, controllers, group in lines:
        if f"/{id}" not in group:  # ours, as where no group could be made
            continue
        if "freezer" in controllers.split(","):
            return f"{_V1}{group}/freezer.state", "FROZEN", "THAWED"
        if not controllers:
            for mount in _V2:
                path = f"{mount}{group}/cgroup.freeze"
                if _read(path) is not None:
                    return path, "1", "0"
    return None


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:  # ENODEV: the group goes away at this moment
        return None


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENODEV}:
            raise  # those two: the container has ended, and its group goes away


def _is(path: str) -> bool:
    return _read(path) in {"FROZEN", "FREEZING", "1"}


def _has_stopped(path: str) -> bool:
    if path.endswith("freezer.state"):
        return _read(path) in {"FROZEN", None}
    events = _read(path.replace("cgroup.freeze", "cgroup.events"))
    return events is None or "frozen 1" in events
