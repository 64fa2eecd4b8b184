# SPDX-License-Identifier: Apache-2.0
"""Removing a directory tree: by descriptor, without following links, however deep it is.

Two processes may remove the same tree at once (GC finds what another is removing): what is gone is
no error.
"""

from __future__ import annotations

import os
import stat

from lamina.system.paths import failure
from lamina.system.process import unique_name
from lamina.system.userns import can_mount, enter

_DEEP = 200  # levels; each open level costs a descriptor and the limit is often 1024


def remove_tree(path: str) -> int:
    """Remove the directory tree at `path`, no error if it is gone; bytes of disk freed.

    Files of other owners in it take an ordinary user's process into a user namespace.

    Raises:
        LaminaError: something cannot be removed (a mount point, an immutable file).
    """
    parent = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    removal = _Removal(parent, os.path.basename(path))
    try:
        try:
            return removal.run()
        except PermissionError:
            if can_mount():
                raise
            enter()
            return removal.run()
    except OSError as error:
        raise failure(error, f"cannot remove {path}") from error
    finally:
        os.close(parent)


class _Removal:
    def __init__(self, parent: int, name: str) -> None:
        self._parent = parent
        self._name = name
        self._todo = [name]
        self._freed = 0

    def run(self) -> int:
        while self._todo:
            name = self._todo[-1]
            self._remove(self._parent, name, depth=0)
            self._todo.remove(name)
        return self._freed

    def _remove(self, parent: int, name: str, *, depth: int) -> None:
        try:
            fd = _open_directory(parent, name)
        except FileNotFoundError:
            return
        try:
            for entry in os.listdir(fd):
                self._remove_entry(fd, entry, depth=depth)
        finally:
            os.close(fd)
        try:
            os.rmdir(name, dir_fd=parent)
        except FileNotFoundError:
            return

    def _remove_entry(self, fd: int, entry: str, *, depth: int) -> None:
        try:
            self._remove_present(fd, entry, depth=depth)
        except FileNotFoundError:
            return

    def _remove_present(self, fd: int, entry: str, *, depth: int) -> None:
        found = os.stat(entry, dir_fd=fd, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(entry, dir_fd=fd)
            if found.st_nlink == 1:
                self._freed += found.st_blocks * 512
            return
        self._freed += found.st_blocks * 512
        if depth < _DEEP:
            self._remove(fd, entry, depth=depth + 1)
            return
        # Too deep to hold every level open: move the rest up beside the tree, and do it later. The
        # name is nobody else's: another process may be removing the same tree, or have died of it.
        aside = f"{self._name}.deep.{unique_name()}"
        os.rename(entry, aside, src_dir_fd=fd, dst_dir_fd=self._parent)
        self._todo.append(aside)


def _open_directory(parent: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except PermissionError:  # not root, and the image has a directory without r or x
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, flags, dir_fd=parent)
