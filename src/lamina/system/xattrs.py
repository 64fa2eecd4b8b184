# SPDX-License-Identifier: Apache-2.0
"""Extended attributes (xattr(7)): read sorted, and know which belong to overlayfs itself."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    Xattrs = tuple[tuple[bytes, bytes], ...]

CAPABILITY = b"security.capability"

# Private to overlayfs (Documentation/filesystems/overlayfs.rst); `user.` with `userxattr`.
_OVERLAY_PREFIXES = (b"trusted.overlay.", b"user.overlay.")
_OPAQUE_NAMES = ("trusted.overlay.opaque", "user.overlay.opaque")
_NOTHING = frozenset({errno.ENOTSUP, errno.ENODATA, errno.ENOSYS})


def is_overlay_private(name: bytes) -> bool:
    """Whether the attribute is overlayfs's bookkeeping, which never belongs in a layer."""
    return name.startswith(_OVERLAY_PREFIXES)


def opaque_name(*, privileged: bool) -> str:
    """The attribute that makes a directory opaque: `trusted.` for root, `user.` for userxattr."""
    return _OPAQUE_NAMES[0] if privileged else _OPAQUE_NAMES[1]


def read_xattrs(path: bytes | str | int) -> Xattrs:
    """All attributes of a file (a path is not followed; or a descriptor), sorted by name.

    Empty where the filesystem has none. Raises OSError.
    """
    follow = isinstance(path, int)
    try:
        names = os.listxattr(path, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NOTHING:
            return ()
        raise
    if not names:
        return ()
    found = [(os.fsencode(n), os.getxattr(path, n, follow_symlinks=follow)) for n in names]
    return tuple(sorted(found))


def xattrs_beneath(root: bytes, path: bytes) -> Xattrs:
    """`read_xattrs` of `root/path` of any length; the root itself is followed. Raises OSError."""
    if not path:
        return read_xattrs(root + b"/.")
    from lamina.system.paths import PATH_MAX, descend

    if len(root) + len(path) + 1 < PATH_MAX:
        return read_xattrs(root + b"/" + path)
    fd, rest = descend(root, path)
    try:
        return read_xattrs(b"/proc/self/fd/%d/%s" % (fd, rest))
    finally:
        os.close(fd)


def is_opaque(xattrs: Xattrs) -> bool:
    """Whether the attributes make a directory of an overlay layer opaque."""
    return any(os.fsdecode(n) in _OPAQUE_NAMES and v == b"y" for n, v in xattrs)


def copied_xattrs(fd: int) -> tuple[tuple[bytes, bytes], ...]:
    """The extended attributes that a copy keeps, sorted: file capabilities and `user.*`.

    Labels of the host's security modules and overlayfs's own bookkeeping stay behind.
    """
    found = read_xattrs(fd)
    if not found:
        return ()
    return tuple(
        (name, value)
        for name, value in found
        if name == CAPABILITY or (name.startswith(b"user.") and not is_overlay_private(name))
    )
