# SPDX-License-Identifier: Apache-2.0
"""A directory tree on this host, read through its file descriptor: a build context or a stage.

Paths are bytes relative to the root, `b""` is the root itself. Symbolic links are resolved inside
the root, as after chroot(2); nothing outside it is ever opened.
"""

from __future__ import annotations

import errno
import os
import stat

from lamina.errors import Kind, LaminaError
from lamina.layer.entry import EntryType
from lamina.system.paths import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lamina.dockerfile.ignore import IgnoreMatcher

    # path relative to the root, status, descriptor of its directory, name there
    Step = tuple[bytes, os.stat_result, int, str]
    # path relative to the root, descriptor, names, their statuses
    Listing = tuple[bytes, int, list[str], list[os.stat_result]]

_FORMAT = 0o170000  # S_IFMT: a call for each file would be half of the loop

_TYPES = {
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFDIR: EntryType.DIR,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFCHR: EntryType.CHAR,
    stat.S_IFBLK: EntryType.BLOCK,
    stat.S_IFIFO: EntryType.FIFO,
}
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_DIR = _READ | os.O_DIRECTORY


def entry_type(mode: int) -> EntryType | None:
    """The type of a file by its st_mode; None for a socket, which no layer can hold."""
    return _TYPES.get(stat.S_IFMT(mode))


def shown(path: bytes) -> str:
    """A path for a message."""
    return path.decode("utf-8", "backslashreplace")


class Tree:
    """`root_fd` is owned by the tree: `close` it. `what` says in messages what the tree is.

    With `ignore`, a path that the patterns exclude does not exist. `keeps_owner` tells whether
    owners mean something (a stage) or are an accident of the host (a build context). With
    `git_modes` files have one of the two modes that git knows, whatever theirs is.
    """

    def __init__(
        self,
        root_fd: int,
        *,
        what: str,
        ignore: IgnoreMatcher | None,
        keeps_owner: bool,
        git_modes: bool = False,
    ) -> None:
        self.root_fd = root_fd
        self.what = what
        self.keeps_owner = keeps_owner
        self.git_modes = git_modes
        self._ignore = ignore
        self._held: list[tuple[bytes, int]] = []  # directories that stay open

    def close(self) -> None:
        """Close the root. Idempotent."""
        while self._held:
            os.close(self._held.pop()[1])
        if self.root_fd >= 0:
            os.close(self.root_fd)
            self.root_fd = -1

    def mode(self, status: os.stat_result) -> int:
        """The permission bits that a file of this tree counts as having."""
        if not self.git_modes:
            return stat.S_IMODE(status.st_mode)
        is_open = stat.S_ISDIR(status.st_mode) or status.st_mode & stat.S_IXUSR
        return 0o755 if is_open else 0o644

    def resolve(self, path: bytes) -> bytes:
        """Where the path leads; see `resolve`."""
        return resolve(path, self._readlink)

    def _readlink(self, path: bytes) -> bytes | None:
        try:
            return os.readlink(path, dir_fd=self.root_fd)
        except OSError as error:
            if error.errno in _MISSING or error.errno == errno.EINVAL:
                return None
            raise self._failure(error, path) from error

    def status(self, path: bytes) -> os.stat_result | None:
        """lstat(2) of a resolved path; None if there is nothing or if it is ignored."""
        try:
            found = os.stat(path or b".", dir_fd=self.root_fd, follow_symlinks=False)
        except OSError as error:
            if error.errno in _MISSING:
                return None
            raise self._failure(error, path) from error
        if self._ignore is None or not path or not self._ignore.excludes(os.fsdecode(path)):
            return found
        if stat.S_ISDIR(found.st_mode) and next(self.walk(path), None) is not None:
            return found  # ignored, but something below is included again
        return None

    def names(self, path: bytes) -> list[bytes]:
        """What a directory holds, sorted by bytes, sockets and the ignored left out."""
        prefix = path + b"/" if path else b""
        names = self._scan_names(path)
        return [name for name in names if self.status(prefix + name) is not None]

    def _scan_names(self, path: bytes) -> list[bytes]:
        fd = self._open_dir(path)
        try:
            return sorted(map(os.fsencode, os.listdir(fd)))
        except OSError as error:
            raise self._failure(error, path) from error
        finally:
            os.close(fd)

    def walk(self, path: bytes, *, enter: Callable[[bytes], bool] | None = None) -> Iterator[Step]:
        """Everything below a directory, sorted by path components, directories first.

        `enter` says (by the path relative to the root) which directories to look into.

        Yields the path relative to the root, its status, and (valid until the next step) the
        descriptor of its directory and its name there. Sockets are left out; an ignored directory
        is there only if something in it is.
        """
        frames = [_Frame(self._open_dir(path), path, None)]
        try:
            frames[0].entries = self._scan(frames[0].fd, path)
            while frames:
                frame = frames[-1]
                if not frame.entries:
                    os.close(frames.pop().fd)
                    continue
                name, status = frame.entries.pop()
                place = _join(frame.path, os.fsencode(name))
                mode = status.st_mode
                is_ignored = self._ignore is not None and self._ignore.excludes(os.fsdecode(place))
                step = (place, status, frame.fd, name)
                if not is_ignored and not stat.S_ISSOCK(mode):
                    yield from _announced(frames)
                    yield step
                if not stat.S_ISDIR(mode) or (enter is not None and not enter(place)):
                    continue
                if not is_ignored or self._may_include_below(place):
                    below = self._open_below(frame.fd, name, place)
                    frames.append(_Frame(below, place, step if is_ignored else None))
                    frames[-1].entries = self._scan(below, place)
        finally:
            for frame in frames:
                os.close(frame.fd)

    @property
    def is_plain(self) -> bool:
        """Whether an ignored directory never holds something that is not ignored."""
        return self._ignore is None or not self._ignore.has_exclusions

    def directories(self, path: bytes) -> Iterator[Listing]:
        """A directory of a plain tree and all below it, parents first, else sorted as by `walk`.

        Yields path, descriptor (valid until the next step), names, their statuses. What `walk`
        leaves out is not there.
        """
        assert self.is_plain
        frames: list[tuple[int, bytes, list[str]]] = []
        fd = self._open_dir(path)
        try:
            while True:
                frames.append((fd, path, []))
                names, statuses, formats = self._listed(fd, path)
                yield path, fd, names, statuses
                if stat.S_IFDIR in formats:
                    kinds = zip(names, formats, strict=True)
                    frames[-1][2].extend([n for n, kind in kinds if kind == stat.S_IFDIR][::-1])
                while frames and not frames[-1][2]:
                    os.close(frames.pop()[0])
                if not frames:
                    return
                above, parent, rest = frames[-1]
                name = rest.pop()
                path = _join(parent, os.fsencode(name))
                fd = self._open_below(above, name, path)
        finally:
            for frame in frames:
                os.close(frame[0])

    def _listed(self, fd: int, path: bytes) -> tuple[list[str], list[os.stat_result], list[int]]:
        """Names, statuses and formats (`S_IFMT`) in a directory, sorted by bytes, without sockets
        and the ignored.
        """
        status_of = os.stat
        try:
            names = os.listdir(fd)
            if self._ignore is not None:
                prefix = os.fsdecode(path) + "/" if path else ""
                excludes = self._ignore.excludes
                names = [name for name in names if not excludes(prefix + name)]
            names.sort(key=None if "".join(names).isascii() else os.fsencode)
            try:
                found = [status_of(name, dir_fd=fd, follow_symlinks=False) for name in names]
            except FileNotFoundError:  # removed since the directory was read
                names, found = _still_there(fd, names)
        except OSError as error:
            raise self._failure(error, path) from error
        formats = [status.st_mode & _FORMAT for status in found]
        if stat.S_IFSOCK in formats:
            kept = [n for n, kind in enumerate(formats) if kind != stat.S_IFSOCK]
            names, found = [names[n] for n in kept], [found[n] for n in kept]
            formats = [formats[n] for n in kept]
        return names, found, formats

    def _may_include_below(self, place: bytes) -> bool:
        return self._ignore is not None and self._ignore.may_include_below(os.fsdecode(place))

    def _scan(self, fd: int, path: bytes) -> list[tuple[str, os.stat_result]]:
        """Names and statuses, the last one first: they are taken from the end."""
        found = []
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    try:
                        found.append((entry.name, entry.stat(follow_symlinks=False)))
                    except FileNotFoundError:
                        continue  # removed since the directory was read
        except OSError as error:
            raise self._failure(error, path) from error
        found.sort(key=_by_name, reverse=True)
        return found

    def _open_dir(self, path: bytes) -> int:
        """Open a directory by its resolved path, one component at a time, following no link.

        The same as openat2(RESOLVE_NO_SYMLINKS), without the ctypes it needs.
        """
        fd = os.open(".", _READ_DIR, dir_fd=self.root_fd)
        for part in path.split(b"/") if path else ():
            try:
                below = os.open(part, _READ_DIR, dir_fd=fd)
            except OSError as error:
                raise self._failure(error, path) from error
            finally:
                os.close(fd)
            fd = below
        return fd

    def _open_below(self, fd: int, name: str, place: bytes) -> int:
        try:
            return os.open(name, _READ_DIR, dir_fd=fd)
        except OSError as error:
            raise self._failure(error, place) from error

    def open_at(self, fd: int, name: str, place: bytes) -> int:
        """Open a file that `walk` has just yielded, for reading."""
        try:
            # O_NONBLOCK: a file that has become a fifo must not hang the build
            return os.open(name, _READ | os.O_NONBLOCK, dir_fd=fd)
        except OSError as error:
            raise self._failure(error, place) from error

    def open(self, path: bytes) -> int:
        """Open a file or directory by its resolved path for reading, following no link at all."""
        if not path:
            return self._open_dir(path)
        parent, _, name = path.rpartition(b"/")
        # the directory of the last file stays open: most are opened one after the other
        try:
            held, fd = self._held.pop()
        except IndexError:
            fd = self._open_dir(parent)
        else:
            if held != parent:
                os.close(fd)
                fd = self._open_dir(parent)
        try:
            return self.open_at(fd, os.fsdecode(name), path)
        finally:
            self._held.append((parent, fd))  # one for each thread that opens files

    def readlink(self, place: bytes, fd: int, name: str) -> bytes:
        """The target of a link that `walk` has just yielded, as stored."""
        try:
            return os.fsencode(os.readlink(name, dir_fd=fd))
        except OSError as error:
            raise self._failure(error, place) from error

    def _failure(self, error: OSError, path: bytes) -> LaminaError:
        text = f"cannot read {shown(path)!r} of {self.what}: {error.strerror}"
        if error.errno in {errno.EACCES, errno.EPERM}:
            hint = "change its permissions, or exclude it with a .dockerignore"
            return LaminaError(text, kind=Kind.DENIED, hint=hint)
        if error.errno in _MISSING:
            return changed(path, self.what)
        is_full = error.errno in {errno.EMFILE, errno.ENFILE}
        return LaminaError(text, kind=Kind.EXHAUSTED if is_full else Kind.SYSTEM)


class _Frame:
    """A directory being walked; `step` is its own, if it is ignored and not yet announced."""

    __slots__ = ("entries", "fd", "path", "step")

    def __init__(self, fd: int, path: bytes, step: Step | None) -> None:
        self.fd = fd
        self.path = path
        self.step = step
        self.entries: list[tuple[str, os.stat_result]] = []


def _announced(frames: list[_Frame]) -> Iterator[Step]:
    """Ignored directories that have just been found to hold something, outermost first."""
    for frame in frames:
        if frame.step is not None:
            step, frame.step = frame.step, None
            yield step


def _still_there(fd: int, names: list[str]) -> tuple[list[str], list[os.stat_result]]:
    """Names and statuses of those that are there."""
    found: dict[str, os.stat_result] = {}
    for name in names:
        try:
            found[name] = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
    return list(found), list(found.values())


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


def changed(path: bytes, what: str) -> LaminaError:
    """The error for a file that was written, replaced or removed while it was read."""
    return LaminaError(
        f"{shown(path)!r} of {what} changed while the build was reading it",
        kind=Kind.CONFLICT,
        hint="build again when nothing writes there, or exclude it with a .dockerignore",
    )


def _by_name(found: tuple[str, os.stat_result]) -> bytes:
    return os.fsencode(found[0])
