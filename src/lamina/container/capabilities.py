# SPDX-License-Identifier: Apache-2.0
"""Linux capabilities of a container: Docker's default set, and what `--cap-add/drop` make of it."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ALL_CAPABILITIES: tuple[str, ...] = tuple(
    "CAP_" + name
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ]
)
"""Every capability, at the index that is its number (capabilities(7))."""

DEFAULT_CAPABILITIES: tuple[str, ...] = tuple(
    "CAP_" + name
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SYS_CHROOT",
        "MKNOD",
        "AUDIT_WRITE",
        "SETFCAP",
    ]
)
"""The fourteen that Docker gives to a container (mask 00000000a80425fb), by number."""


def from_mask(mask: int) -> tuple[str, ...]:
    """The capabilities whose bits are set in a mask of /proc/PID/status."""
    return tuple(name for number, name in enumerate(ALL_CAPABILITIES) if mask >> number & 1)


def container_capabilities(
    add: Sequence[str], drop: Sequence[str], *, privileged: bool, available: Iterable[str]
) -> tuple[str, ...]:
    """The capabilities of a container, by number, as Docker computes them.

    `available` is what this process can pass on; a default it lacks is left out.

    Raises:
        LaminaError: kind USAGE for an unknown name, DENIED for one asked for but not available.
    """
    added, dropped = [_name(text) for text in add], [_name(text) for text in drop]
    offered = frozenset(available)
    for name in added:
        if name != "ALL" and name not in offered:
            raise LaminaError(
                f"cannot add capability {name}: this process does not have it", kind=Kind.DENIED
            )
    if privileged or "ALL" in added:
        wanted = set(ALL_CAPABILITIES) if privileged else set(ALL_CAPABILITIES) - set(dropped)
    elif "ALL" in dropped:
        wanted = set(added)
    else:
        wanted = (set(DEFAULT_CAPABILITIES) - set(dropped)) | set(added)
    return tuple(name for name in ALL_CAPABILITIES if name in wanted and name in offered)


def _name(text: str) -> str:
    upper = text.upper()
    if upper == "ALL":
        return upper
    name = upper if upper.startswith("CAP_") else "CAP_" + upper
    if name not in ALL_CAPABILITIES:
        raise LaminaError(
            f"unknown capability {text!r}",
            kind=Kind.USAGE,
            hint="see capabilities(7), for example NET_ADMIN",
        )
    return name
