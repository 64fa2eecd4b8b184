# SPDX-License-Identifier: Apache-2.0
"""Paths that cannot leave a root: openat2(2), and walks by directory file descriptor.

A name that comes from an archive, an image or a Dockerfile is never joined to a host path and
opened: it is resolved beneath an open root directory, where `..`, absolute names and symbolic
links stay inside, as they would after chroot(2). Paths are bytes, relative to the root; a leading
slash means the root.
"""

from __future__ import annotations

import errno
import os
import stat
from struct import Struct

from lamina.errors import Kind, LaminaError

PATH_MAX = 4096  # limits.h; a path of this length or more must be walked in pieces
NAME_MAX = 255
_MAX_SYMLINKS = 40  # what Linux follows in one lookup (path_resolution(7))

_SYS_OPENAT2 = 437  # the same number on every architecture (since Linux 5.6)
_RESOLVE_NO_MAGICLINKS = 0x02  # linux/openat2.h
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_IN_ROOT = 0x10
_MAX_RETRIES = 128  # EAGAIN: a rename raced with `..`; openat2(2) asks for a retry

_KINDS = {
    errno.ENOSPC: Kind.EXHAUSTED,
    errno.EDQUOT: Kind.EXHAUSTED,
    errno.EFBIG: Kind.EXHAUSTED,
    errno.EMFILE: Kind.EXHAUSTED,
    errno.ENFILE: Kind.EXHAUSTED,
    errno.ENOMEM: Kind.EXHAUSTED,
    errno.EMLINK: Kind.EXHAUSTED,
    errno.EPERM: Kind.DENIED,
    errno.EACCES: Kind.DENIED,
    errno.EROFS: Kind.DENIED,
    errno.ENOENT: Kind.NOT_FOUND,
    errno.ENAMETOOLONG: Kind.INVALID,
    errno.ELOOP: Kind.INVALID,
    errno.ENOTDIR: Kind.INVALID,
}
_HINTS = {
    errno.ENOSPC: "free some space, then try again",
    errno.EDQUOT: "free some space, then try again",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def shown(path: bytes) -> str:
    """A path for a message: quoted, with bytes that are not UTF-8 or not printable escaped."""
    text = path.decode("utf-8", "backslashreplace")
    return "'" + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text) + "'"


def failure(error: OSError, what: str) -> LaminaError:
    """The LaminaError for a system call that failed: `what` was tried, errno says why."""
    number = error.errno or 0
    hint = _HINTS.get(number, "")
    reason = os.strerror(number) if number else str(error)
    return LaminaError(f"{what}: {reason}", kind=_KINDS.get(number, Kind.SYSTEM), hint=hint)


_HOW = Struct("=QQQ")  # struct open_how: flags, mode, resolve


def _openat2(root_fd: int, path: bytes, *, flags: int, mode: int, resolve: int) -> int:
    """openat2(2), which the C library does not wrap. Raises OSError."""
    from lamina.start.libc import call, get_errno

    if b"\0" in path:
        raise OSError(errno.EINVAL, "embedded NUL byte")
    how = _HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_MAX_RETRIES):
        fd = call("syscall", _SYS_OPENAT2, root_fd, path, how, _HOW.size)
        if fd >= 0:
            return fd
        number = get_errno()
        if number not in {errno.EAGAIN, errno.EINTR}:
            raise OSError(number, os.strerror(number))
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _open(root_fd: int, path: bytes, *, flags: int, mode: int, no_symlinks: bool) -> int:
    """`open_in_root` that raises OSError, except where openat2 itself is missing."""
    resolve = _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS
    if no_symlinks:
        resolve |= _RESOLVE_NO_SYMLINKS
    try:
        return _openat2(root_fd, path or b".", flags=flags, mode=mode, resolve=resolve)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise LaminaError(
                "this kernel has no openat2(2)",
                kind=Kind.UNSUPPORTED,
                hint="lamina needs Linux 5.6 or later, and a sandbox that lets openat2 through",
            ) from error
        raise


def open_in_root(
    root_fd: int, path: bytes, flags: int, mode: int = 0, *, no_symlinks: bool = False
) -> int:
    """Open `path` as if `root_fd` were the root directory; the caller closes the descriptor.

    O_CLOEXEC is always set. `mode` must be 0 unless `flags` create (openat2 insists). Links of
    /proc (`/proc/self/root`) are never followed. With `no_symlinks` any symbolic link on the way
    is an error; without it, add O_NOFOLLOW to refuse one as the last component.

    Raises:
        LaminaError: NOT_FOUND, DENIED, INVALID (loop, not a directory, name too long), EXHAUSTED,
            UNSUPPORTED (Linux before 5.6), else SYSTEM.
    """
    try:
        return _open(root_fd, path, flags=flags, mode=mode, no_symlinks=no_symlinks)
    except OSError as error:
        raise failure(error, f"cannot open {shown(path)}") from error


def lookup_in_root(root_fd: int, path: bytes) -> os.stat_result | None:
    """The status of what `path` names in the root, links followed; None if there is nothing.

    A dangling link, and a path that goes through something that is not a directory, name nothing.
    """
    try:
        fd = _open(root_fd, path, flags=os.O_PATH, mode=0, no_symlinks=False)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return None
        raise failure(error, f"cannot look up {shown(path)}") from error
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def realpath_in_root(root_fd: int, path: bytes) -> bytes:
    """Where `path` leads inside the root: relative to it, no links, no `.` or `..`; root is `b""`.

    Components that do not exist are kept as written, so this also says where a file would be made.

    Raises:
        LaminaError: INVALID for a loop of links or a component that is not a directory.
    """
    done: list[bytes] = []
    todo = path.split(b"/")[::-1]
    links = 0
    while todo:
        name = todo.pop()
        if name in {b"", b"."}:
            continue
        if name == b"..":
            del done[-1:]
            continue
        link = _readlink_in_root(root_fd, b"/".join([*done, name]))
        if link is None:
            done.append(name)
            continue
        links += 1
        if links > _MAX_SYMLINKS:
            raise LaminaError(f"too many symbolic links in {shown(path)}", kind=Kind.INVALID)
        if link.startswith(b"/"):
            done.clear()
        todo += link.split(b"/")[::-1]
    return b"/".join(done)


def _readlink_in_root(root_fd: int, path: bytes) -> bytes | None:
    """The target of the link at `path`, which is reached without links; None if it is no link."""
    try:
        fd = _open(root_fd, path, flags=os.O_PATH | os.O_NOFOLLOW, mode=0, no_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise failure(error, f"cannot resolve {shown(path)}") from error
    try:
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            return None
        return os.readlink(b"", dir_fd=fd)  # readlinkat(2): an empty name reads the O_PATH fd
    finally:
        os.close(fd)


def descend(root: bytes, path: bytes) -> tuple[int, bytes]:
    """A descriptor of a directory on the way to `root/path`, and the rest of the path.

    For paths that are too long for one system call. `root` is trusted, `path` is walked in pieces
    without following links. The caller closes the descriptor. Raises OSError.
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    fd = os.open(root, flags)
    try:
        while len(path) >= PATH_MAX // 2:
            cut = path.rfind(b"/", 0, PATH_MAX // 2)
            if cut <= 0:
                break
            lower = os.open(path[:cut], flags | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd, path = lower, path[cut + 1 :]
    except OSError:
        os.close(fd)
        raise
    return fd, path


def lstat_beneath(root: bytes, path: bytes) -> os.stat_result:
    """lstat(2) of `root/path` of any length; stat(2) of the root itself. Raises OSError."""
    if not path:
        return os.stat(root)  # the root is trusted and may be a link (/proc/self/fd/N)
    if len(root) + len(path) + 1 < PATH_MAX:
        return os.lstat(root + b"/" + path)
    fd, rest = descend(root, path)
    try:
        return os.stat(rest, dir_fd=fd, follow_symlinks=False)
    finally:
        os.close(fd)


def open_beneath(root: bytes, path: bytes, flags: int) -> int:
    """open(2) of `root/path` of any length, the last component not followed. Raises OSError."""
    flags |= os.O_CLOEXEC
    if not path:
        return os.open(root, flags)
    flags |= os.O_NOFOLLOW
    if len(root) + len(path) + 1 < PATH_MAX:
        return os.open(root + b"/" + path, flags)
    fd, rest = descend(root, path)
    try:
        return os.open(rest, flags, dir_fd=fd)
    finally:
        os.close(fd)


def readlink_beneath(root: bytes, path: bytes) -> bytes:
    """readlink(2) of `root/path` of any length. Raises OSError."""
    if len(root) + len(path) + 1 < PATH_MAX:
        return os.readlink(root + b"/" + path)
    fd, rest = descend(root, path)
    try:
        return os.readlink(rest, dir_fd=fd)
    finally:
        os.close(fd)


def names_in(path: str) -> list[str]:
    """The names in a directory, sorted; none if there is no such directory."""
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def unlink_if_there(path: str) -> None:
    """Remove a file; no error if there is none."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
