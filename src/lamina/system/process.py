# SPDX-License-Identifier: Apache-2.0
"""Which process is meant: by pid and start time, which together are never reused in a boot, or a pidfd."""

from __future__ import annotations

import os
from itertools import count

from lamina.start.record import Record

_START_TIME = 22  # field number in /proc/PID/stat (proc_pid_stat(5)), in clock ticks since boot
_STATE = 3
_FIRST_AFTER_NAME = 3  # the name in parentheses (field 2) may hold spaces and parentheses
_DEAD = frozenset({b"Z", b"X", b"x"})
_numbers = count(1)
_SYS_PIDFD_SEND_SIGNAL, _SYS_PIDFD_OPEN = 424, 434  # the same everywhere


class ProcessIdentity(Record):
    """A pid and the process's start time in clock ticks since boot."""

    pid: int
    start_ticks: int

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        fields = _stat_fields(self.pid)
        if fields is None or fields[_STATE - _FIRST_AFTER_NAME] in _DEAD:
            return False
        return int(fields[_START_TIME - _FIRST_AFTER_NAME]) == self.start_ticks


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of the process that has `pid` now; None if there is none."""
    fields = _stat_fields(pid)
    if fields is None:
        return None
    return ProcessIdentity(pid, int(fields[_START_TIME - _FIRST_AFTER_NAME]))


def this_process() -> ProcessIdentity:
    """The calling process's identity."""
    found = identify(os.getpid())
    return found if found is not None else ProcessIdentity(os.getpid(), 0)  # /proc not mounted


def open_pidfd(pid: int) -> int:
    """A descriptor (close-on-exec) of the process that has `pid` now. Raises OSError: ESRCH for none."""
    from lamina.start.libc import checked

    return checked("syscall", _SYS_PIDFD_OPEN, pid, 0)


def signal_pidfd(pidfd: int, number: int) -> None:
    """Send a signal to the process of a pidfd. Raises ProcessLookupError if it has ended."""
    from lamina.start.libc import checked

    checked("syscall", _SYS_PIDFD_SEND_SIGNAL, pidfd, number, None, 0)


def unique_name() -> str:
    """`PID-STARTTIME-NUMBER`: nobody else's, in any thread of any process of this boot."""
    me = this_process()
    return f"{me.pid}-{me.start_ticks}-{next(_numbers)}"


def _stat_fields(pid: int) -> list[bytes] | None:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        text = os.read(fd, 4096)
    except ProcessLookupError:  # it ended between open and read
        return None
    finally:
        os.close(fd)
    return text.rpartition(b")")[2].split()
