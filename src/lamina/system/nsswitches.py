# SPDX-License-Identifier: Apache-2.0
"""What a host has set against user namespaces of ordinary users: the kernel's limits, distributions' switches."""

from __future__ import annotations

from lamina.start.record import Record

_SWITCHES = (  # file, the values that refuse, why, the value that lets
    (
        "kernel/unprivileged_userns_clone",
        ("0",),
        "this distribution's kernel gives user namespaces to root only",
        "1",
    ),
    (
        "user/max_user_namespaces",
        ("0",),
        "the kernel's limit on user namespaces is 0",
        "28633",
    ),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        ("1", "2"),
        "AppArmor takes every capability away in user namespaces of ordinary users",
        "0",
    ),
)


class Switch(Record):
    """One setting that stands against user namespaces, and the command that changes it."""

    why: str
    mend: str


def refusals(directory: str = "/proc/sys") -> tuple[Switch, ...]:
    """The settings of this host that refuse user namespaces to ordinary users."""
    found: list[Switch] = []
    for name, refusing, why, letting in _SWITCHES:
        try:
            with open(f"{directory}/{name}", encoding="ascii") as file:
                value = file.read().strip()
        except (OSError, ValueError):
            continue  # this kernel has no such switch
        if value in refusing:
            key = name.replace("/", ".")
            found.append(Switch(f"{why} ({key}={value})", f"sudo sysctl -w {key}={letting}"))
    return tuple(found)
