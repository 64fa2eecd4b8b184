# SPDX-License-Identifier: Apache-2.0
"""Directory trees as items: an overlay upper directory (a changeset), or a plain tree.

Items come in `entry.sort_key` order, so the same tree gives the same layer whatever order the
filesystem lists it in. Contents are opened when they are read.
"""

from __future__ import annotations

import os
import stat

from lamina.errors import Kind, LaminaError
from lamina.layer.entry import OPAQUE_WHITEOUT, WHITEOUT_PREFIX, Entry, EntryType, join
from lamina.start.record import replace
from lamina.system.paths import (
    PATH_MAX,
    failure,
    lstat_beneath,
    open_beneath,
    readlink_beneath,
    shown,
)
from lamina.system.xattrs import (
    CAPABILITY,
    is_opaque,
    is_overlay_private,
    read_xattrs,
    xattrs_beneath,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lamina.layer.entry import Content, Item
    from lamina.system.xattrs import Xattrs

    Children = list[tuple[bytes, os.stat_result]]

_TYPES = {
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFCHR: EntryType.CHAR,
    stat.S_IFBLK: EntryType.BLOCK,
    stat.S_IFDIR: EntryType.DIR,
    stat.S_IFIFO: EntryType.FIFO,
}
# A file's data or name lies elsewhere if one of these is set (metacopy=on, redirect_dir=on).
_UNSUPPORTED = frozenset({b"trusted.overlay.redirect", b"user.overlay.redirect"})
_METACOPY = frozenset({b"trusted.overlay.metacopy", b"user.overlay.metacopy"})


class _Opener:
    """Opens one file of the tree when the writer gets to it."""

    __slots__ = ("_path", "_root")

    def __init__(self, root: bytes, path: bytes) -> None:
        self._root = root
        self._path = path

    def __call__(self) -> int:
        return open_beneath(self._root, self._path, os.O_RDONLY)


def is_whiteout(status: os.stat_result) -> bool:
    """Whether it is overlayfs's whiteout: a character device 0:0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def whiteout(path: bytes) -> Entry:
    """A whiteout's or opaque marker's entry, in the form containerd writes: all zero."""
    return Entry(path, EntryType.FILE, 0)


def keeps_xattr(name: bytes) -> bool:
    """Whether a layer records the attribute: file capabilities and users' own.

    Others (SELinux labels, ACLs, trusted.*) belong to the host; Docker and containerd drop them.
    """
    return name == CAPABILITY or (name.startswith(b"user.") and not is_overlay_private(name))


def overlay_items(upper: str) -> Iterator[Item]:
    """The changeset that an overlay upper (or layer) directory holds; the root has no entry.

    0:0 character devices become whiteouts, opaque directories hold an opaque marker, further names
    of one file are hard links to the first, sockets are left out. The overlay must not be mounted.

    Raises:
        LaminaError: INVALID for a file named `.wh.*`, which a layer cannot hold; UNSUPPORTED for
            directories renamed under redirect_dir or metacopy files; what reading raised.
    """
    return _Walk(os.fsencode(upper), overlay=True).items()


def tree_items(
    root: str,
    *,
    include_root: bool = False,
    owner: tuple[int, int] | None = None,
) -> Iterator[Item]:
    """A plain directory tree as items, by the same rules; nothing is a whiteout.

    `include_root` adds the root directory's own entry, `owner` replaces every uid and gid.

    Raises:
        LaminaError: INVALID for a file named `.wh.*`; what reading raised.
    """
    return _Walk(os.fsencode(root), overlay=False, include_root=include_root, owner=owner).items()


def item_at(
    root: bytes,
    path: bytes,
    *,
    status: os.stat_result | None = None,
    keep: Callable[[bytes], bool] = keeps_xattr,
) -> Item | None:
    """The item of one file beneath `root`, not followed; None for a socket. Raises OSError."""
    found = status or lstat_beneath(root, path)
    kind = _TYPES.get(stat.S_IFMT(found.st_mode))
    if kind is None:
        return None
    xattrs = tuple((n, v) for n, v in xattrs_beneath(root, path) if keep(n))
    link = readlink_beneath(root, path) if kind is EntryType.SYMLINK else b""
    return _item(root, path, kind, found, xattrs=xattrs, link=link)


def _item(
    root: bytes,
    path: bytes,
    kind: EntryType,
    status: os.stat_result,
    *,
    xattrs: Xattrs,
    link: bytes,
) -> Item:
    is_device = kind is EntryType.CHAR or kind is EntryType.BLOCK
    is_file = kind is EntryType.FILE
    size = status.st_size if is_file else 0
    entry = Entry(
        path,
        kind,
        status.st_mode & 0o7777,
        status.st_uid,
        status.st_gid,
        size,
        status.st_mtime_ns,
        link,
        os.major(status.st_rdev) if is_device else 0,
        os.minor(status.st_rdev) if is_device else 0,
        xattrs,
    )
    content: Content = None
    if is_file:
        content = _Opener(root, path) if size else b""
    return entry, content


class _Walk:
    def __init__(
        self,
        root: bytes,
        *,
        overlay: bool,
        include_root: bool = False,
        owner: tuple[int, int] | None = None,
    ) -> None:
        self._root = root
        self._overlay = overlay
        self._include_root = include_root
        self._owner = owner
        self._first: dict[tuple[int, int], bytes] = {}  # (device, inode) of files with many links

    def items(self) -> Iterator[Item]:
        """The walk, depth first, one list of children in memory for each level."""
        path = b""
        try:
            if self._include_root:
                status = lstat_beneath(self._root, b"")
                yield self._entry(b"", status, xattrs_beneath(self._root, b""))
            stack = [(b"", iter(self._children(b"")))]
            while stack:
                parent, children = stack[-1]
                child = next(children, None)
                if child is None:
                    stack.pop()
                    continue
                name, status = child
                path = join(parent, name)
                if self._overlay and is_whiteout(status):
                    yield whiteout(join(parent, WHITEOUT_PREFIX + name)), b""
                    continue
                if stat.S_ISSOCK(status.st_mode):
                    continue
                if name.startswith(WHITEOUT_PREFIX):
                    raise _reserved(path)
                # Only files and directories can have what a layer keeps (xattr(7)).
                has_xattrs = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
                xattrs = self._xattrs(path) if has_xattrs else ()
                yield self._entry(path, status, xattrs)
                if stat.S_ISDIR(status.st_mode):
                    opaque = self._overlay and is_opaque(xattrs)
                    if opaque:
                        yield whiteout(join(path, OPAQUE_WHITEOUT)), b""
                    stack.append((path, iter(self._children(path, opaque=opaque))))
        except OSError as error:
            raise failure(error, f"cannot read {shown(path)} in {shown(self._root)}") from error

    def _children(self, path: bytes, *, opaque: bool = False) -> Children:
        """Names and status, whiteouts first, then by name.

        An opaque directory's own whiteouts hide nothing and are left out.
        """
        full = self._root + b"/" + path if path else self._root
        if len(full) + 256 < PATH_MAX:
            with os.scandir(full) as found:
                children = [(e.name, e.stat(follow_symlinks=False)) for e in found]
        else:
            children = self._far_children(path)
        children.sort(key=_by_name)
        if not self._overlay:
            return children
        hidden = [child for child in children if is_whiteout(child[1])]
        if not hidden:
            return children
        rest = [child for child in children if not is_whiteout(child[1])]
        # Sorted as their `.wh.` names are: all have the same prefix, so by name.
        return rest if opaque else hidden + rest

    def _far_children(self, path: bytes) -> Children:
        """The same, for a directory whose path is too long for one system call."""
        fd = open_beneath(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(fd) as found:
                return [(os.fsencode(e.name), e.stat(follow_symlinks=False)) for e in found]
        finally:
            os.close(fd)

    def _xattrs(self, path: bytes) -> Xattrs:
        full = self._root + b"/" + path
        if len(full) < PATH_MAX:
            return read_xattrs(full)
        return xattrs_beneath(self._root, path)

    def _entry(self, path: bytes, status: os.stat_result, xattrs: Xattrs) -> Item:
        kind = _TYPES[stat.S_IFMT(status.st_mode)]
        if self._overlay and xattrs:
            _check_supported(path, xattrs)
        link = readlink_beneath(self._root, path) if kind is EntryType.SYMLINK else b""
        kept = tuple([pair for pair in xattrs if keeps_xattr(pair[0])]) if xattrs else ()
        entry, content = _item(self._root, path, kind, status, xattrs=kept, link=link)
        if self._owner is not None:
            entry = replace(entry, uid=self._owner[0], gid=self._owner[1])
        if status.st_nlink > 1 and kind is not EntryType.DIR:
            inode = (status.st_dev, status.st_ino)
            first = self._first.setdefault(inode, path)
            if first is not path:
                # Attributes stay on the link: extractors that chown it drop its capabilities.
                return _link(entry, first), None
        return entry, content


def _link(entry: Entry, first: bytes) -> Entry:
    kind = EntryType.HARDLINK
    return replace(entry, type=kind, size=0, linkname=first, devmajor=0, devminor=0)


def _by_name(child: tuple[bytes, os.stat_result]) -> bytes:
    return child[0]


def _check_supported(path: bytes, xattrs: Xattrs) -> None:
    for name, _ in xattrs:
        if name in _UNSUPPORTED or name in _METACOPY:
            raise LaminaError(
                f"{shown(path)} was changed by an overlay mounted with redirect_dir or metacopy",
                kind=Kind.UNSUPPORTED,
                hint="mount the overlay with redirect_dir=off,metacopy=off",
            )


def _reserved(path: bytes) -> LaminaError:
    return LaminaError(
        f"a layer cannot hold {shown(path)}: names that begin with .wh. mean deletions",
        kind=Kind.INVALID,
        hint="rename or remove it in the step that makes it",
    )
