# SPDX-License-Identifier: Apache-2.0
"""The control groups of a container: where they are, and an end to all that is in them."""

from __future__ import annotations

import os
import time

from lamina.errors import LaminaError
from lamina.start.jsontext import loads
from lamina.start.lowlevel import signal
from lamina.system.process import open_pidfd, signal_pidfd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = "/sys/fs/cgroup"
_PATIENCE = 10.0  # seconds until the killed have gone
_PAUSE = 0.005


def group_of_bundle(directory: str, id: str) -> str:
    """The control group that the bundle in `directory` was started with, without its first slash."""
    try:
        with open(f"{directory}/config.json", encoding="utf-8") as file:
            found = loads(file.read())["linux"]["cgroupsPath"]
    except (OSError, ValueError, KeyError, TypeError):
        return id
    return str(found).lstrip("/")


def directories_of(group: str, *, root: str = _ROOT) -> list[str]:
    """The directories of the group, in each hierarchy that has it."""
    hierarchies = os.listdir(root) if os.path.isdir(root) else ()
    tops = [f"{root}/{group}", *(f"{root}/{entry}/{group}" for entry in hierarchies)]
    return [top for top in tops if os.path.exists(f"{top}/cgroup.procs")]


def kill_all(group: str) -> None:
    """Kill every process of the group and of those beneath it; returns when they have gone.

    Raises LaminaError of kind SYSTEM if some stay.
    """
    end = time.monotonic() + _PATIENCE
    while found := [pid for top in directories_of(group) for pid in _processes(top, group)]:
        if time.monotonic() > end:
            raise LaminaError(f"processes {sorted(found)} of the container do not end")
        for pid in found:
            _kill(pid, group)
        time.sleep(_PAUSE)


def _processes(top: str, group: str) -> Iterator[int]:
    """What is in the group. The runtime may have written a pid to a file that only looks like a
    control group's, on the tmpfs that hides a hybrid host's second hierarchy: so /proc is asked too.
    """
    for directory, _, _ in os.walk(top):
        try:
            with open(f"{directory}/cgroup.procs", encoding="ascii") as file:
                found = [int(line) for line in file]
        except OSError:  # the group goes away at this moment
            continue
        yield from (pid for pid in found if pid and is_inside(pid, group))


def is_inside(pid: int, group: str) -> bool:
    """Whether the process is in the group, in any hierarchy; not if it is gone."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
            return f"/{group}" in file.read()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _kill(pid: int, group: str) -> None:
    """Kill the process, if it still is the group's (the pid may be another's by now)."""
    try:
        pidfd = open_pidfd(pid)
    except OSError:
        return
    try:
        if is_inside(pid, group):
            signal_pidfd(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)
