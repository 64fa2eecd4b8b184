# SPDX-License-Identifier: Apache-2.0
"""Entries placed beneath one directory, which they cannot leave.

Every step from directory to directory is an open by descriptor that does not follow links; a
symbolic link on the way is read and resolved here, with the target as the root, as containerd's
`fs.RootPath` does. So an archive may replace a directory by a link, or link to `/etc`, and still
never touches anything outside. Later entries win. The target must not be changed by others
meanwhile.

Metadata order: owner, then attributes (chown drops security.capability), then mode (chown clears
setuid), then times; directories last of all, so that they are writable and keep their mtime. The
umask plays no part: files are created 0600 and changed by descriptor.
"""

from __future__ import annotations

import errno
import os
import stat

from lamina.errors import Kind, LaminaError
from lamina.layer.entry import WHITEOUT_PREFIX, Entry, EntryType, join, resolve, split
from lamina.layer.lower import Lowers, is_hidden
from lamina.layer.rules import (
    check_device,
    check_link_room,
    check_name,
    hidden_name,
    invalid_link,
    is_not_private,
    not_a_directory,
)
from lamina.layer.tarread import EntryReader
from lamina.layer.walk import is_whiteout, item_at
from lamina.start.record import Record
from lamina.system.paths import failure, shown
from lamina.system.userns import ids_hint, is_mapped
from lamina.system.xattrs import is_overlay_private, opaque_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from lamina.layer.entry import Content, Item

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_OPEN = 96  # cached directory descriptors; several layers may be applied at once
_CHUNK = 1 << 20
_PAGE = 4096  # a block of zeros of this size is not written but left a hole
_ZERO_PAGE = bytes(_PAGE)
_NOT_A_DIRECTORY = frozenset({errno.ENOTDIR, errno.ELOOP})


class Policy(Record):
    """How entries become files.

    overlay: whiteouts become 0:0 devices and opaque attributes; else they are refused.
    privileged: trusted.* attributes and device nodes can be made; else devices are left out and
        the attributes that the kernel refuses too.
    owners: set uid and gid.
    setid: keep setuid and setgid bits.
    """

    overlay: bool
    privileged: bool = True
    owners: bool = True
    setid: bool = True


class Tree:
    """The target directory. Use as a context manager; `finish` sets directory metadata."""

    def __init__(self, target: str, *, policy: Policy, lowers: Lowers | None = None) -> None:
        self._policy = policy
        self._lowers = lowers
        try:
            self._root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise failure(error, f"cannot open {shown(os.fsencode(target))}") from error
        self._fds: dict[bytes, int] = {}
        self._directories: dict[bytes, Entry] = {}  # metadata to set at the end
        self._opaque: set[bytes] = set()
        self._whiteouts: set[bytes] = set()
        self._ids = (os.geteuid(), os.getegid())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close_fds()
        os.close(self._root)

    def place(self, entry: Entry, content: Content) -> None:
        """Make what the entry says.

        Raises:
            LaminaError: INVALID if it cannot be (a file as parent, a missing link target, a bad
                whiteout, a name that is too long), EXHAUSTED, DENIED, SYSTEM.
        """
        try:
            self._place(entry, content)
        except OSError as error:
            raise self._failure(error, entry) from error

    def _place(self, entry: Entry, content: Content) -> None:
        path = entry.path
        if not path:
            self._directories[b""] = entry
            return
        parent, name = split(path)
        check_name(path, name)
        directory, fd = self._resolve(parent)
        if name.startswith(WHITEOUT_PREFIX):
            self._whiteout(entry, directory, name)
            return
        match entry.type:
            case EntryType.FILE:
                self._file(entry, content, fd, join(directory, name))
            case EntryType.DIR:
                self._directory(entry, fd, join(directory, name))
            case EntryType.SYMLINK:
                self._symlink(entry, fd, join(directory, name))
            case EntryType.HARDLINK:
                self._hardlink(entry, fd, join(directory, name))
            case EntryType.CHAR | EntryType.BLOCK | EntryType.FIFO:
                self._node(entry, fd, join(directory, name))

    # Directories on the way

    def _resolve(self, path: bytes) -> tuple[bytes, int]:
        """The real directory that `path` leads to, made if missing, and its descriptor.

        The descriptor belongs to the cache and is valid until the next call.
        """
        fd = self._fds.get(path) if path else self._root
        if fd is not None:
            return path, fd
        at = resolve(path, self._enter)
        return at, self._fd(at)

    def _fd(self, path: bytes) -> int:
        """The cached descriptor of a real directory of the target."""
        if not path:
            return self._root
        fd = self._fds.get(path)
        if fd is not None:
            return fd
        missing = [path]
        while (parent := split(missing[-1])[0]) and parent not in self._fds:
            missing.append(parent)
        for child in reversed(missing):
            above, name = split(child)
            above_fd = self._fds[above] if above else self._root
            fd = self._remember(child, os.open(name, _DIR_FLAGS, dir_fd=above_fd))
        assert fd is not None
        return fd

    def _remember(self, path: bytes, fd: int) -> int:
        if len(self._fds) >= _MAX_OPEN:
            self._close_fds()
        self._fds[path] = fd
        return fd

    def _close_fds(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def _enter(self, path: bytes) -> bytes | None:
        """Make sure that the directory `path` is there and cached; its target if it is a link."""
        if path in self._fds:
            return None
        parent, name = split(path)
        above = self._fd(parent)
        try:
            self._remember(path, os.open(name, _DIR_FLAGS, dir_fd=above))
            return None
        except FileNotFoundError:
            return self._enter_missing(above, path)
        except OSError as error:
            if error.errno not in _NOT_A_DIRECTORY:
                raise
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(name, dir_fd=above)
        if not is_whiteout(status) or not self._policy.overlay:
            raise not_a_directory(path)
        os.unlink(name, dir_fd=above)
        self._make_parent(above, path, Entry(path, EntryType.DIR, 0o755))
        self._make_opaque(path)
        return None

    def _enter_missing(self, above: int, path: bytes) -> bytes | None:
        """A directory that this layer does not have: as the layers below show it, else 0755."""
        found = self._below(path)
        entry = Entry(path, EntryType.DIR, 0o755)
        if found is not None and found[0].type is EntryType.SYMLINK:
            return found[0].linkname
        if found is not None and found[0].type is EntryType.DIR:
            entry = found[0]
        self._make_parent(above, path, entry)
        return None

    def _make_parent(self, above: int, path: bytes, entry: Entry) -> None:
        os.mkdir(split(path)[1], 0o700, dir_fd=above)
        self._directories[path] = entry

    def _below(self, path: bytes) -> Item | None:
        """The item that the layers below show at a real path of this layer."""
        if self._lowers is None or is_hidden(path, self._opaque):
            return None
        found = self._lowers.lookup(path)
        if found is None:
            return None
        root, status = found
        return item_at(root, path, status=status, keep=is_not_private)

    def _make_opaque(self, path: bytes) -> None:
        if self._policy.overlay:
            name = opaque_name(privileged=self._policy.privileged)
            os.setxattr(self._fd(path), name, b"y")
            self._opaque.add(path)

    # Entries

    def _whiteout(self, entry: Entry, directory: bytes, name: bytes) -> None:
        if not self._policy.overlay:
            raise LaminaError(
                f"{shown(entry.path)} is a whiteout, which means nothing outside a layer",
                kind=Kind.INVALID,
            )
        hidden = hidden_name(entry.path, name)
        if hidden:
            self._hide(join(directory, hidden))
        elif directory:
            self._make_opaque(directory)
        else:
            self._hide_root()

    def _hide_root(self) -> None:
        """An opaque marker in the root: overlayfs has no such thing, so hide name by name."""
        if self._lowers is None:
            raise LaminaError(
                "an opaque whiteout in the root needs the layers below to be known",
                kind=Kind.UNSUPPORTED,
            )
        for name in self._lowers.names():
            self._hide(name)

    def _hide(self, path: bytes) -> None:
        """Hide what the layers below show at `path`; what this layer put there itself stays."""
        parent, name = split(path)
        above = self._fd(parent)
        try:
            status = os.stat(name, dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            # A whiteout over nothing would be listed by overlayfs in directories of one layer.
            if self._lowers is None or self._below(path) is not None:
                os.mknod(name, stat.S_IFCHR, 0, dir_fd=above)
                self._whiteouts.add(path)
            return
        if stat.S_ISDIR(status.st_mode):
            self._make_opaque(path)

    def _file(self, entry: Entry, content: Content, above: int, path: bytes) -> None:
        name = split(path)[1]
        try:
            fd = os.open(name, _FILE_FLAGS, 0o600, dir_fd=above)
        except FileExistsError:
            self._clear(above, path)
            fd = os.open(name, _FILE_FLAGS, 0o600, dir_fd=above)
        try:
            if entry.size:
                _write_content(fd, entry, content)
            self._finish_fd(fd, entry)
        finally:
            os.close(fd)

    def _directory(self, entry: Entry, above: int, path: bytes) -> None:
        name = split(path)[1]
        try:
            os.mkdir(name, 0o700, dir_fd=above)
        except FileExistsError:
            status = os.stat(name, dir_fd=above, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                # What was here hid a directory below; the new one must not show it again.
                self._clear(above, path)
                os.mkdir(name, 0o700, dir_fd=above)
                self._make_opaque(path)
        self._directories[path] = entry

    def _symlink(self, entry: Entry, above: int, path: bytes) -> None:
        name = split(path)[1]
        self._make(lambda: os.symlink(entry.linkname, name, dir_fd=above), above, path)
        self._finish_path(above, name, entry)

    def _node(self, entry: Entry, above: int, path: bytes) -> None:
        name = split(path)[1]
        kind = stat.S_IFIFO
        device = 0
        if entry.type is not EntryType.FIFO:
            kind = stat.S_IFCHR if entry.type is EntryType.CHAR else stat.S_IFBLK
            device = os.makedev(entry.devmajor, entry.devminor)
            if not self._policy.privileged:
                return
            if self._policy.overlay:
                check_device(entry)
        self._make(lambda: os.mknod(name, kind | 0o600, device, dir_fd=above), above, path)
        self._finish_path(above, name, entry)

    def _hardlink(self, entry: Entry, above: int, path: bytes) -> None:
        parent, name = split(entry.linkname)
        above = os.dup(above)  # resolving the other name may close it
        try:
            directory, fd = self._resolve(parent)
            source = join(directory, name)
            self._check_link_source(entry, fd, source)
            if source == path:
                return
            check_link_room(entry, path, source)
            fd = self._fd(directory)  # copying up may have closed it
            self._make(
                lambda: os.link(
                    name,
                    split(path)[1],
                    src_dir_fd=fd,
                    dst_dir_fd=above,
                    follow_symlinks=False,
                ),
                above,
                path,
            )
        finally:
            os.close(above)

    def _check_link_source(self, entry: Entry, fd: int, source: bytes) -> None:
        """Make sure that the link's other name is a file of this layer, copied up if need be."""
        try:
            status = os.stat(split(source)[1], dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            below = self._below(source)
            if below is not None and below[0].type is not EntryType.DIR:
                self._place(*below)
                return
            status = None
        if status is None or stat.S_ISDIR(status.st_mode) or self._is_hiding(status):
            raise invalid_link(entry)

    def _is_hiding(self, status: os.stat_result) -> bool:
        return self._policy.overlay and is_whiteout(status)

    def _make(self, make: Callable[[], None], above: int, path: bytes) -> None:
        try:
            make()
        except FileExistsError:
            self._clear(above, path)
            make()

    # Removal

    def _clear(self, above: int, path: bytes) -> None:
        """Remove what is at `path`, so that a later entry takes its place."""
        name = split(path)[1]
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=above)
            return
        _remove_directory(above, name)
        inside = path + b"/"
        for fd_path in [p for p in self._fds if p == path or p.startswith(inside)]:
            os.close(self._fds.pop(fd_path))
        # What _directories, _opaque and _whiteouts remember beneath is stale now. Searching them
        # here would be quadratic for a hostile archive; a directory made again replaces its entry
        # and is opaque, and `finish` passes over what is gone.

    # Metadata

    def finish(self) -> None:
        """Set owner, attributes, mode and times of every directory that was made or named.

        The root, in overlay form and without an entry, gets those of the root below, else 0755.
        """
        try:
            if self._policy.overlay and b"" not in self._directories:
                below = self._below(b"")
                self._directories[b""] = below[0] if below else Entry(b"", EntryType.DIR, 0o755)
            self._drop_hidden_whiteouts()
            # Children before parents: a parent may end up without search permission. Sorting by
            # path, reversed, also keeps the cached descriptors useful.
            for path in sorted(self._directories, reverse=True):
                fd = self._fd_if_there(path)
                if fd is not None:
                    self._finish_fd(fd, self._directories[path])
        except OSError as error:
            raise self._failure(error, None) from error

    def _drop_hidden_whiteouts(self) -> None:
        """Whiteouts in what became opaque later hide nothing, and overlayfs would list them."""
        for path in self._whiteouts:
            parent, name = split(path)
            above = self._fd_if_there(parent) if is_hidden(path, self._opaque) else None
            if above is not None and _is_whiteout_at(above, name):
                os.unlink(name, dir_fd=above)

    def _fd_if_there(self, path: bytes) -> int | None:
        try:
            return self._fd(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _NOT_A_DIRECTORY:
                return None
            raise

    def _finish_fd(self, fd: int, entry: Entry) -> None:
        if self._policy.owners:
            self._chown(fd, entry)
        if entry.xattrs:
            self._set_xattrs(fd, entry)
        os.fchmod(fd, entry.mode if self._policy.setid else entry.mode & 0o1777)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def _finish_path(self, above: int, name: bytes, entry: Entry) -> None:
        """The same for what cannot be opened without effect: a link, a device, a fifo."""
        if self._policy.owners:
            os.chown(name, entry.uid, entry.gid, dir_fd=above, follow_symlinks=False)
        if entry.xattrs:
            self._set_xattrs(b"/proc/self/fd/%d/%s" % (above, name), entry)
        if entry.type is not EntryType.SYMLINK:
            os.chmod(name, entry.mode, dir_fd=above)
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(name, ns=times, dir_fd=above, follow_symlinks=False)

    def _chown(self, fd: int, entry: Entry) -> None:
        if (entry.uid, entry.gid) != self._ids or entry.type is EntryType.DIR:
            os.fchown(fd, entry.uid, entry.gid)

    def _set_xattrs(self, file: int | bytes, entry: Entry) -> None:
        for name, value in entry.xattrs:
            if is_overlay_private(name):
                continue  # an archive must not speak to overlayfs: redirects, metacopy
            try:
                os.setxattr(file, name, value, follow_symlinks=isinstance(file, int))
            except OSError as error:
                if not self._may_lack(name, entry, error.errno):
                    raise

    def _failure(self, error: OSError, entry: Entry | None) -> LaminaError:
        """The error of making `entry`; of None that of a directory's metadata."""
        if entry is None:
            found = failure(error, "cannot set the metadata of a directory")
        else:
            found = failure(error, f"cannot create {shown(entry.path)}")
            if found.kind is Kind.NOT_FOUND or error.errno == errno.EINVAL:
                found.kind = Kind.INVALID  # an empty link target, attributes the kernel rejects
        if error.errno == errno.EPERM and self._ids[0] != 0:
            found.hint = "only root makes files of other owners, and devices: run lamina as root"
        if (
            error.errno == errno.EINVAL
            and entry is not None
            and not is_mapped(entry.uid, entry.gid)
        ):
            found.kind = Kind.DENIED
            found.what += f" (its owner {entry.uid}:{entry.gid} is not among the ids of your user)"
            found.hint = ids_hint()
        return found

    def _may_lack(self, name: bytes, entry: Entry, number: int | None) -> bool:
        """Whether the attribute may be left out, as containerd does."""
        if number == errno.ENOTSUP:
            return True  # the filesystem has none of this kind
        if number != errno.EPERM:
            return False
        if name.startswith(b"user."):
            return entry.type not in {EntryType.FILE, EntryType.DIR}  # xattr(7)
        return not self._policy.privileged


def _write_content(fd: int, entry: Entry, content: Content) -> None:
    if isinstance(content, bytes):
        _write_all(fd, content)
    elif isinstance(content, EntryReader):
        _copy(fd, entry, content.read, content.hole)
    elif callable(content):
        source = content()
        try:
            _copy(fd, entry, lambda size: os.read(source, size), None)
        finally:
            os.close(source)
    else:
        assert content is not None
        _copy(fd, entry, content.read, None)


def _copy(
    fd: int,
    entry: Entry,
    read: Callable[[int], bytes],
    hole: Callable[[], int] | None,
) -> None:
    """Write `entry.size` bytes; holes of the archive and whole pages of zeros become holes."""
    left = entry.size
    sparse = False
    while left:
        skipped = hole() if hole is not None else 0
        if skipped:
            os.lseek(fd, skipped, os.SEEK_CUR)
            sparse = True
            left -= skipped
            continue
        data = read(min(left, _CHUNK))
        if not data:
            raise LaminaError(
                f"{shown(entry.path)} changed while it was read: {left} bytes are missing",
                kind=Kind.CONFLICT,
            )
        left -= len(data)
        # A page of zeros begins and ends with one: this looks at two bytes a page.
        if 0 in data[::_PAGE] and 0 in data[_PAGE - 1 :: _PAGE]:
            sparse = _write_pages(fd, data) or sparse
        else:
            _write_all(fd, data)
    if sparse:
        os.ftruncate(fd, entry.size)  # the end may be a hole


def _write_pages(fd: int, data: bytes) -> bool:
    """Write runs of pages that are not all zero, seek over the others; whether there were any."""
    start = 0
    sparse = False
    for at in range(0, len(data), _PAGE):
        page = data[at : at + _PAGE]
        if page == _ZERO_PAGE:
            if start < at:
                _write_all(fd, data[start:at])
            os.lseek(fd, _PAGE, os.SEEK_CUR)
            start = at + _PAGE
            sparse = True
    if start < len(data):
        _write_all(fd, data[start:])
    return sparse


def _write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])


def _remove_directory(above: int, name: bytes) -> None:
    """Remove a tree of any depth with two descriptors: subdirectories are moved up first."""
    pending = [name]
    count = 0
    while pending:
        directory = pending.pop()
        fd = os.open(directory, _DIR_FLAGS, dir_fd=above)
        try:
            with os.scandir(fd) as entries:
                found = [(os.fsencode(e.name), e.is_dir(follow_symlinks=False)) for e in entries]
            for child, is_directory in found:
                if not is_directory:
                    os.unlink(child, dir_fd=fd)
                    continue
                while _exists(above, moved := b".lamina-removed-%d" % count):
                    count += 1
                os.rename(child, moved, src_dir_fd=fd, dst_dir_fd=above)
                pending.append(moved)
        finally:
            os.close(fd)
        os.rmdir(directory, dir_fd=above)


def _is_whiteout_at(above: int, name: bytes) -> bool:
    try:
        return is_whiteout(os.stat(name, dir_fd=above, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _exists(above: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
