# SPDX-License-Identifier: Apache-2.0
"""A base that is looked at in its layers' directories, without mounting them.

What overlayfs would show at a path (Documentation/filesystems/overlayfs.rst): directories of one name
are one, until one of them is opaque or a whiteout or another kind of file lies above the rest.
"""

from __future__ import annotations

import os
import stat

from lamina.builder.changes import OpenedBase
from lamina.builder.tree import shown
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = "trusted.overlay.opaque"  # as root's mounts read it; `user.` means nothing to them


class LayerDirectories:
    """Layers' directories, each opened once however many bases stand on it. Any thread may ask."""

    def __init__(self) -> None:
        self._opened: dict[str, int] = {}

    def base(self, layers: Sequence[str]) -> LayeredBase:
        """A stack of layers, top first, each a directory of the store; valid until `close`."""
        return LayeredBase([self._open(path) for path in layers])

    def _open(self, path: str) -> int:
        known = self._opened.get(path)
        if known is not None:
            return known
        fd = os.open(path, _DIRECTORY)
        first = self._opened.setdefault(path, fd)
        if first != fd:  # another thread was faster
            os.close(fd)
        return first

    def close(self) -> None:
        """Close the directories. Idempotent."""
        while self._opened:
            os.close(self._opened.popitem()[1])


class LayeredBase(OpenedBase):
    """A stack of layers by descriptors of their directories, top first."""

    def __init__(self, layers: list[int]) -> None:
        self._layers = layers

    def _open(self, path: bytes, flags: int) -> int:
        try:
            return self._opened(path, flags)
        except OSError as error:
            from lamina.system.paths import failure

            raise failure(error, f"cannot open {shown(path)}") from error

    def _opened(self, path: bytes, flags: int) -> int:
        if not path:
            return os.open(".", flags | os.O_CLOEXEC, dir_fd=self._layers[0])
        *parents, name = path.split(b"/")
        stack = self._layers
        try:
            for parent in parents:
                deeper = _directories(stack, parent)
                if stack is not self._layers:
                    _close(stack)
                stack = deeper
            fd = _topmost(stack, name)
            if fd is None:
                raise LaminaError(f"'/{shown(path)}' does not exist", kind=Kind.NOT_FOUND)
            return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        finally:
            if stack is not self._layers:
                _close(stack)


def _topmost(stack: list[int], name: bytes) -> int | None:
    """The directory of the stack whose entry of that name is seen."""
    for fd in stack:
        status = _status(fd, name)
        if status is not None:
            return None if _is_whiteout(status) else fd
    return None


def _directories(stack: list[int], name: bytes) -> list[int]:
    """The directories that make up the stack's directory of that name; empty if it has none."""
    found: list[int] = []
    try:
        for fd in stack:
            status = _status(fd, name)
            if status is None:
                continue
            if not stat.S_ISDIR(status.st_mode):
                break
            found.append(os.open(name, _DIRECTORY, dir_fd=fd))
            if _is_opaque(found[-1]):
                break
    except OSError:
        _close(found)
        raise
    return found


def _status(fd: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, _OPAQUE) == b"y"
    except OSError:
        return False


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
