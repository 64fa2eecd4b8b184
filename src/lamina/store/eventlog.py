# SPDX-License-Identifier: Apache-2.0
"""The event log: one line for each thing that was done to what the store holds (`lamina events`).

    note(store.root, "volume", "create", name, {"driver": "local"})

is all that a room says. `events.log` is appended to by any number of processes under a lock that is
held for one write; at `LIMIT` bytes it becomes `events.log.1`. It is never flushed to the disk and never
the cause of a failure: it tells what happened, nothing depends on it (docs/adr/0116-events.md).
`store/eventreader` reads it.
"""

from __future__ import annotations

import fcntl
import os
import time

from lamina.start.jsontext import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FILE = "events.log"
LIMIT = 2 << 20  # bytes of a file; two are kept: about ten thousand events
MAX_LINE = 64 << 10  # bytes; labels of an image may be any length


def note(
    root: str,
    type: str,
    action: str,
    id: str,
    attributes: Mapping[str, str],
    *,
    clock: Callable[[], int] = time.time_ns,
) -> None:
    """Append one event to the log of the store at `root`.

    `type`, `action`, `id` and `attributes` are Docker's (docs.docker.com, "docker system events").
    A log that cannot be written, on a full disk say, loses the event and nothing else.
    """
    try:
        _append(f"{root}/{FILE}", [type, action, id, dict(attributes)], clock)
    except OSError:
        return


def _append(path: str, event: list[object], clock: Callable[[], int]) -> None:
    while True:
        log = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(log, fcntl.LOCK_EX)
            size = _size_of_current(log, path)
            if size is not None and size < LIMIT:
                # the time is taken under the lock, so that lines are in its order
                _write(log, size, _line(event, clock()))
                return
            if size is not None:
                os.rename(path, f"{path}.1")
        finally:
            os.close(log)


def _size_of_current(log: int, path: str) -> int | None:
    """Bytes in the log; None if it was rotated while we waited for its lock."""
    ours = os.fstat(log)
    try:
        current = os.stat(path)
    except FileNotFoundError:
        return None
    return ours.st_size if current.st_ino == ours.st_ino else None


def _line(event: list[object], at: int) -> bytes:
    line = _encoded([at, *event])
    if len(line) > MAX_LINE:
        line = _encoded([at, *event[:-1], {}])
    return line


def _encoded(event: list[object]) -> bytes:
    return dumps(event, separators=(",", ":")).encode() + b"\n"


def _write(log: int, size: int, line: bytes) -> None:
    if size and os.pread(log, 1, size - 1) != b"\n":
        line = b"\n" + line  # a writer was killed in the middle of its line
    try:
        written = os.write(log, line)
    except OSError:
        written = 0
    if written < len(line):  # the disk is full
        os.ftruncate(log, size)
