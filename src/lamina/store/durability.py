# SPDX-License-Identifier: Apache-2.0
"""What is on the disk for certain, and what a power loss may still take.

Blobs and layers are published without a flush each; one `syncfs` before a name is set covers them
all (ADR 0017). Until then a power loss may leave a published blob empty or torn, and a later build
would take it for good. So before a process publishes its first blob it leaves a *mark*,
`unsynced/<boot id>.<pid>.<start>.<n>`:

- no mark: everything published is on the disk, and a flush has nothing to do;
- a mark of this boot: a flush is due before the next name;
- a mark of an earlier boot: the host went down in between, so blobs published since are suspect
  and must be hashed again before they are believed (`suspects_since`).

A mark is removed after a flush that began when its owner had nothing in flight, or was dead.
"""

from __future__ import annotations

import itertools
import os

from lamina.start.lowlevel import allocate_lock
from lamina.system.process import ProcessIdentity, this_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

# A clock set back between the mark and the publishing must not hide a torn blob; hashing an hour's
# blobs again after a power loss costs little.
CLOCK_SLACK = 3600.0  # seconds
_numbers = itertools.count(1)  # of this process: several stores may be open on one root
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def read_boot_id() -> str:
    """An identifier of this boot of the host; `unknown` where the kernel does not give one."""
    try:
        with open(_BOOT_ID, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return "unknown"


class Durability:
    """The marks of one store root, and this process's part in them."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._directory = os.path.join(root, "unsynced")
        self._guard = allocate_lock()
        self._in_flight = 0
        self._mark = ""
        self._pid = 0
        self._boot_id = ""

    @property
    def boot_id(self) -> str:
        """This boot's id, read once."""
        if not self._boot_id:
            self._boot_id = read_boot_id()
        return self._boot_id

    def publishing(self) -> _Publishing:
        """A block in which something unflushed gets its final place; marks the store first."""
        return _Publishing(self)

    def flush(self) -> None:
        """Return when everything published before the call is on the disk.

        Raises:
            LaminaError: the flush failed: nothing may be named.
        """
        marks = os.listdir(self._directory)
        if not marks:
            return
        own = self._quiet_mark()
        finished = [name for name in marks if name == own or not self._owner_lives(name)]
        from lamina.system.mounts import syncfs

        syncfs(self._root)
        for name in finished:
            self._unlink(name)

    def suspects_since(self) -> float | None:
        """The POSIX time since which published blobs are suspect, None if none are: there are marks
        of an earlier boot.
        """
        times: list[float] = []
        for name in os.listdir(self._directory):
            if name.partition(".")[0] == self.boot_id:
                continue
            try:
                found = os.stat(os.path.join(self._directory, name))
            except FileNotFoundError:
                continue
            times.append(found.st_ctime)
        return min(times) - CLOCK_SLACK if times else None

    def forget_earlier_boots(self) -> None:
        """Remove the marks of earlier boots, after the suspects were examined and flushed."""
        for name in os.listdir(self._directory):
            if name.partition(".")[0] != self.boot_id:
                self._unlink(name)

    def _begin(self) -> None:
        with self._guard:
            self._in_flight += 1
            if self._mark and self._pid == os.getpid():
                return
            self._pid = os.getpid()
            process = this_process()
            name = f"{self.boot_id}.{process.pid}.{process.start_ticks}.{next(_numbers)}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            os.close(os.open(os.path.join(self._directory, name), flags, 0o600))
            self._mark = name

    def _end(self) -> None:
        with self._guard:
            self._in_flight -= 1

    def _quiet_mark(self) -> str:
        """This process's mark if nothing is in flight; the next publishing makes a new one."""
        with self._guard:
            if self._in_flight or not self._mark:
                return ""
            mark, self._mark = self._mark, ""
            return mark

    def _owner_lives(self, name: str) -> bool:
        boot, _, rest = name.partition(".")
        pid, _, rest = rest.partition(".")
        start, _, _ = rest.partition(".")
        if boot != self.boot_id or not (pid.isdecimal() and start.isdecimal()):
            return True  # an earlier boot's: kept until its suspects were examined
        return ProcessIdentity(int(pid), int(start)).alive()

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(os.path.join(self._directory, name))
        except FileNotFoundError:
            return


class _Publishing:
    def __init__(self, durability: Durability) -> None:
        self._durability = durability

    def __enter__(self) -> Self:
        self._durability._begin()
        return self

    def __exit__(self, *exc: object) -> None:
        self._durability._end()
