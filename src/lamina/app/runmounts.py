# SPDX-License-Identifier: Apache-2.0
"""The mounts that a program asks a container for, as values of `RunOptions.mounts`."""

from __future__ import annotations

import os
import posixpath

from lamina.container.ports import Mount
from lamina.container.volumes import check_name
from lamina.errors import Kind, LaminaError

__all__ = ["bind_mount", "tmpfs_mount", "volume_mount"]


def bind_mount(source: str | os.PathLike[str], target: str, *, read_only: bool = False) -> Mount:
    """A file or directory of the host at `target` in the container, which is absolute.

    Raises:
        LaminaError: USAGE for a target that is not, NOT_FOUND if there is no such source.
    """
    path = os.path.abspath(os.path.expanduser(source))
    if not os.path.lexists(path):
        raise LaminaError(f"bind mount: {path} does not exist", kind=Kind.NOT_FOUND)
    options = ("rbind", *(("ro",) if read_only else ()), "rprivate")
    return Mount(_target(target), "bind", path, options)


def tmpfs_mount(target: str, *, size: int = 0, mode: int = 0o1777) -> Mount:
    """An empty file system in memory at `target`, `size` bytes at most (0: half of the memory).

    Raises:
        LaminaError: USAGE for a target that is not absolute.
    """
    options = ["noexec", "nosuid", "nodev", f"mode={mode:o}"]
    if size:
        options.append(f"size={size}")
    return Mount(_target(target), "tmpfs", "tmpfs", tuple(options))


def volume_mount(target: str, name: str = "") -> Mount:
    """The volume `name` at `target`, made if it is not there; without a name one that goes with the
    container. An empty one starts with what the image has there.

    Raises:
        LaminaError: USAGE for a target that is not absolute, and for a name that is none.
    """
    return Mount(_target(target), "volume", check_name(name) if name else "")


def _target(text: str) -> str:
    if not text.startswith("/") or posixpath.normpath(text) == "/":
        raise LaminaError(
            f"invalid mount target {text!r}: it has to be absolute, and not /", kind=Kind.USAGE
        )
    return posixpath.normpath(text)
