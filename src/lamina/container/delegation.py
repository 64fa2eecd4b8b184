# SPDX-License-Identifier: Apache-2.0
"""The control group in which an ordinary user may make others, as systemd delegates one.

Source: the kernel's admin-guide/cgroup-v2.rst, "Delegation": its directory, `cgroup.procs` and
`cgroup.subtree_control` are the user's. A process can be moved into a group beneath it only by who may
write to the nearest group that both are in: so it must be above our own.
"""

from __future__ import annotations

import os

from lamina.start.record import Record

WANTED = ("cpu", "memory", "pids", "io", "cpuset")
_FILES = ("", "/cgroup.procs", "/cgroup.subtree_control")


class Delegated(Record):
    """A group (without its first slash) to make groups in, and the controllers they will have."""

    group: str
    controllers: tuple[str, ...] = ()


def find_delegated(own: str, *, root: str) -> Delegated | None:
    """The group nearest above the one of this process that may be written to; None if none may be.

    `own` is the text of /proc/self/cgroup, `root` where control groups v2 are mounted. Controllers
    that are offered there and not yet passed on are passed on.
    """
    path = next((line[3:] for line in own.splitlines() if line.startswith("0::/")), "/")
    parent = os.path.dirname(path.rstrip("/"))
    while parent not in ("", "/"):
        top = f"{root}{parent}"
        if all(os.access(f"{top}{file}", os.W_OK) for file in _FILES):
            _pass_on(top)
            return Delegated(parent.lstrip("/"), tuple(_words(f"{top}/cgroup.subtree_control")))
        parent = os.path.dirname(parent)
    return None


def _pass_on(top: str) -> None:
    """Give each controller that is there to the groups beneath; the kernel may refuse some."""
    passed = _words(f"{top}/cgroup.subtree_control")
    for name in _words(f"{top}/cgroup.controllers"):
        if name in WANTED and name not in passed:
            try:
                with open(f"{top}/cgroup.subtree_control", "w", encoding="ascii") as file:
                    file.write(f"+{name}")
            except OSError:  # a process sits in the group itself: its controllers stay there
                continue


def _words(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().split()
    except OSError:
        return []
