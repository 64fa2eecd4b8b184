# SPDX-License-Identifier: Apache-2.0
"""Mount points made in a rootfs only to be mounted on, and removed again after the step.

A runtime creates what a mount destination lacks, and it would stay in the layer. So lamina makes
them itself, before: each by directory descriptor and never through a link that leaves the rootfs,
remembering its inode. Afterwards only that inode is removed, only if it is still an empty file or
directory (BuildKit CVE-2024-23652: a clean-up by path deleted the host's files), and the parent's
times are put back so that the layer does not depend on it.
"""

from __future__ import annotations

import os
import stat

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_LINKS = 40  # as the kernel's limit on symbolic links in one path


class _Stub(Record):
    parent: int  # an open directory descriptor, owned by MountStubs
    name: str
    device: int
    inode: int
    directory: bool


class MountStubs:
    """What was made in one rootfs. `remove` must be called; it closes every descriptor."""

    def __init__(self) -> None:
        self._stubs: list[_Stub] = []

    def make(
        self,
        root_fd: int,
        destinations: Iterable[tuple[str, bool]],
        *,
        modes: Mapping[str, int] | None = None,
    ) -> None:
        """Create missing destinations (path, whether a directory) beneath directory `root_fd`.

        `modes` has those directories that are not to be 0755: runc gives a tmpfs the mode of what
        it is mounted on, whatever its options say.

        A destination that cannot be made (a file where a directory should be) is left to the
        runtime, which reports it.
        """
        for path, directory in destinations:
            mode = (modes or {}).get(path, 0o755)
            _Walk(root_fd, self._stubs, mode=mode).make(path, directory=directory)

    def remove(self) -> None:
        """Remove what is still an empty stub of ours, the last made first. Idempotent."""
        while self._stubs:
            stub = self._stubs.pop()
            try:
                _remove(stub)
            finally:
                os.close(stub.parent)


class _Walk:
    """One walk from the root to a destination that keeps the descriptor of every parent."""

    def __init__(self, root_fd: int, stubs: list[_Stub], *, mode: int) -> None:
        self._stubs = stubs
        self._mode = mode
        self._parents = [os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)]
        self._links = 0

    def make(self, path: str, *, directory: bool) -> None:
        todo = [part for part in path.split("/") if part not in ("", ".")][::-1]
        try:
            while todo:
                name = todo.pop()
                if not self._step(name, todo, directory=directory or bool(todo)):
                    return
        except OSError:
            pass  # the runtime meets the same error and says what it could not mount
        finally:
            for descriptor in self._parents:
                os.close(descriptor)

    def _step(self, name: str, todo: list[str], *, directory: bool) -> bool:
        """Enter `name`, following links inside the root; False when there is no more to do."""
        if name == "..":
            if len(self._parents) > 1:
                os.close(self._parents.pop())
            return True
        here = self._parents[-1]
        try:
            status = os.stat(name, dir_fd=here, follow_symlinks=False)
        except FileNotFoundError:
            self._create(here, name, directory=directory, mode=0o755 if todo else self._mode)
            if not directory:
                return False
        else:
            if stat.S_ISLNK(status.st_mode):
                return self._follow(os.readlink(name, dir_fd=here), todo)
            if not stat.S_ISDIR(status.st_mode):
                return False
        self._parents.append(
            os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
        )
        return True

    def _follow(self, target: str, todo: list[str]) -> bool:
        self._links += 1
        if self._links > MAX_LINKS:
            return False
        if target.startswith("/"):
            while len(self._parents) > 1:
                os.close(self._parents.pop())
        todo.extend([part for part in target.split("/") if part not in ("", ".")][::-1])
        return True

    def _create(self, here: int, name: str, *, directory: bool, mode: int) -> None:
        parent = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
        try:
            before = os.fstat(parent)
            if directory:
                os.mkdir(name, 0o755, dir_fd=parent)
                if mode != 0o755:
                    os.chmod(name, mode, dir_fd=parent)
            else:
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o644, dir_fd=parent))
            made = os.stat(name, dir_fd=parent, follow_symlinks=False)
            _restore_times(parent, before)
        except OSError:
            os.close(parent)
            raise
        self._stubs.append(
            _Stub(
                parent=parent,
                name=name,
                device=made.st_dev,
                inode=made.st_ino,
                directory=directory,
            )
        )


def _restore_times(descriptor: int, status: os.stat_result) -> None:
    os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))


def _remove(stub: _Stub) -> None:
    try:
        found = os.stat(stub.name, dir_fd=stub.parent, follow_symlinks=False)
        if (found.st_dev, found.st_ino) != (stub.device, stub.inode):
            return  # the step put something of its own there
        before = os.fstat(stub.parent)
        if stub.directory:
            os.rmdir(stub.name, dir_fd=stub.parent)
        elif found.st_size == 0 and stat.S_ISREG(found.st_mode):
            os.unlink(stub.name, dir_fd=stub.parent)
        else:
            return
        _restore_times(stub.parent, before)
    except OSError:
        return  # gone already, or a directory that the step filled: it belongs to the image now
