# SPDX-License-Identifier: Apache-2.0
"""What a container shares with another one: its namespaces, and the memory that belongs to them."""

from __future__ import annotations

import os

from lamina.container import state
from lamina.errors import Kind, LaminaError
from lamina.start.libc import checked
from lamina.system.mounts import attach, clone, unmount
from lamina.system.userns import is_namespaced

_CLONE_NEWNS = 0x20000


class Joined:
    """Descriptors of namespaces, which the runtime opens by their names in /proc, and mounts.

    A pid would not do: it may be another process's when the runtime comes to it.
    """

    def __init__(self) -> None:
        self._open: list[int] = []
        self._mounted: list[str] = []

    def close(self) -> None:
        """Let go of them. Idempotent."""
        while self._open:
            os.close(self._open.pop())
        while self._mounted:
            unmount(self._mounted.pop())

    def share_memory(self, root: str, id: str, target: str) -> None:
        """Mount the /dev/shm of the running container `id` at the directory `target`."""
        _mount_shared_memory(root, id, target)
        self._mounted.append(target)

    def namespace(self, root: str, id: str, kind: str) -> str:
        """The path of the `kind` (pid, ipc) namespace of container `id` of the store at `root`.

        Raises LaminaError: CONFLICT if it does not run, UNSUPPORTED for an ordinary user, whose
        containers are each in a user namespace of their own.
        """
        word = kind.upper()
        if is_namespaced():
            raise LaminaError(
                f"--{kind} container:{id[:12]} is not supported without root: your containers "
                "are each in a user namespace of their own",
                kind=Kind.UNSUPPORTED,
            )
        pid = pid_of(root, id)
        if pid:
            descriptor = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
            self._open.append(descriptor)
            if pid_of(root, id) == pid:  # still: so what was opened is the container's
                return f"/proc/{os.getpid()}/fd/{descriptor}"
        raise LaminaError(
            f"cannot join {word} of a non running container: {id}", kind=Kind.CONFLICT
        )


def pid_of(root: str, id: str) -> int:
    """The first process of container `id`; 0 if it does not run."""
    boot = state.boot_id()
    found = state.observe(state.directory_of(root, id), boot=boot)
    return found.pid if found.is_running and state.is_alive(found, boot=boot) else 0


def _mount_shared_memory(root: str, id: str, target: str) -> None:
    """See `Joined.share_memory`.

    The mount is to be had in its own mount namespace only, so this process goes there and back. It
    must have one thread. Raises LaminaError.
    """
    pid = pid_of(root, id)
    theirs = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    ours = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        checked("setns", theirs, _CLONE_NEWNS)
        try:
            mount = clone("/dev/shm")  # noqa: S108  # the container's: its root is ours now
        finally:
            checked("setns", ours, _CLONE_NEWNS)
            os.fchdir(here)
        try:
            attach(mount, target)
        finally:
            os.close(mount)
    finally:
        for descriptor in (theirs, ours, here):
            os.close(descriptor)
