# SPDX-License-Identifier: Apache-2.0
"""Network namespaces without names: one lives as long as a descriptor or a process holds it.

Nothing is mounted under /run/netns, so that the kernel frees the namespace and its interfaces
when the holder dies, kill -9 included.
"""

from __future__ import annotations

import errno
import os

from lamina.errors import Kind, LaminaError
from lamina.start.libc import checked
from lamina.start.lowlevel import allocate_lock, start_new_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

CLONE_NEWNET = 0x40000000


def create_namespace(configure: Callable[[], T]) -> tuple[int, T]:
    """Make a network namespace and run `configure` inside it; return (descriptor, its result).

    The caller's thread stays where it is: a short-lived thread enters the namespace. The caller
    closes the descriptor (close-on-exec); the namespace is freed with its last descriptor, socket
    and process. `configure` sees the new namespace in the sockets it opens and in /proc/sys/net.

    Raises:
        LaminaError: kind DENIED (no CAP_SYS_ADMIN), EXHAUSTED (the kernel's limit on namespaces),
            UNSUPPORTED (a kernel without network namespaces).
    """
    results: list[tuple[int, T]] = []
    errors: list[BaseException] = []

    def enter() -> None:
        descriptor = -1
        try:
            unshare(CLONE_NEWNET)
            descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            results.append((descriptor, configure()))
        except BaseException as error:  # noqa: BLE001  # re-raised in the caller's thread
            if descriptor >= 0:
                os.close(descriptor)
            errors.append(error)

    _run_in_thread(enter)
    if errors:
        if isinstance(errors[0], OSError):
            raise _explain(errors[0]) from errors[0]
        raise errors[0]
    return results[0]


def in_namespace(descriptor: int, function: Callable[[], T]) -> T:
    """What `function` gives, or raises, in a thread of its own in the network namespace: for sockets,
    which stay in the namespace that they were made in, and for /proc/sys/net.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            setns(descriptor, CLONE_NEWNET)
            results.append(function())
        except BaseException as error:  # noqa: BLE001  # re-raised in the caller's thread
            errors.append(error)

    _run_in_thread(enter)
    if errors:
        raise errors[0]
    return results[0]


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces. Raises OSError."""
    checked("unshare", flags)


def setns(descriptor: int, flags: int) -> None:
    """Move the calling thread into a namespace. Raises OSError."""
    checked("setns", descriptor, flags)


def _run_in_thread(function: Callable[[], None]) -> None:
    done = allocate_lock()
    done.acquire()

    def body() -> None:
        try:
            function()
        finally:
            done.release()

    start_new_thread(body, ())
    done.acquire()


def _explain(error: OSError) -> LaminaError:
    hint = "use `--network host`, which needs no namespace"
    what = f"cannot create a network namespace: {error.strerror}"
    if error.errno in {errno.EPERM, errno.EACCES}:
        return LaminaError(
            what, kind=Kind.DENIED, hint=f"run as root with CAP_SYS_ADMIN, or {hint}"
        )
    if error.errno in {errno.ENOSPC, errno.EUSERS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
        return LaminaError(
            what,
            kind=Kind.EXHAUSTED,
            hint=f"raise the limit (/proc/sys/user/max_net_namespaces, `ulimit -n`), or {hint}",
        )
    if error.errno in {errno.EINVAL, errno.ENOSYS}:
        return LaminaError(what, kind=Kind.UNSUPPORTED, hint=hint)
    return LaminaError(what, kind=Kind.SYSTEM, hint=hint)
