# SPDX-License-Identifier: Apache-2.0
"""A layer being composed in memory over a base that is only looked at.

`Changes` answers questions about the merged tree (what is there, where a path leads) as if the
layer were mounted over its base, and gives the layer as tar items. So a COPY needs no writable
mount, and files go from the context into the blob without a copy on disk. Finished changes can be
the base of the next ones.
"""

from __future__ import annotations

import os
import stat

from lamina.builder.tree import entry_type, shown
from lamina.errors import Kind, LaminaError
from lamina.layer.entry import WHITEOUT_PREFIX, Entry, EntryType, resolve, sort_key
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from typing import Protocol

    from lamina.layer.entry import Item

    Owner = tuple[int, int]
else:
    Protocol = object

_SECOND = 1_000_000_000
ROOT = Entry(b"", EntryType.DIR, 0o755)


class Base(Protocol):
    """A tree that can be looked at; paths are resolved (no link on the way)."""

    def lookup(self, path: bytes) -> Entry | None:
        """What is at the path, not followed; without extended attributes."""

    def directory(self, path: bytes) -> Entry:
        """The directory at the path, with its extended attributes."""

    def read_small(self, path: bytes, *, limit: int) -> bytes:
        """The bytes of a small regular file.

        Raises:
            LaminaError: kind INVALID if it is something else or larger than `limit` bytes.
        """


class EmptyBase:
    """`FROM scratch`: only the root exists."""

    def lookup(self, path: bytes) -> Entry | None:
        return None if path else ROOT

    def directory(self, path: bytes) -> Entry:
        assert not path
        return ROOT

    def read_small(self, path: bytes, *, limit: int) -> bytes:
        raise LaminaError(f"'/{shown(path)}' does not exist", kind=Kind.NOT_FOUND)


class OpenedBase:
    """A tree whose files can be opened."""

    def _open(self, path: bytes, flags: int) -> int:
        """A descriptor of what is at the path; no link is followed. Raises kind NOT_FOUND, INVALID."""
        raise NotImplementedError

    def lookup(self, path: bytes) -> Entry | None:
        try:
            fd = self._open(path, os.O_PATH | os.O_NOFOLLOW)
        except LaminaError as error:
            if error.kind in {Kind.NOT_FOUND, Kind.INVALID}:
                return None
            raise
        try:
            found = os.fstat(fd)
            is_link = stat.S_ISLNK(found.st_mode)
            link = os.readlink(b"", dir_fd=fd) if is_link else b""
        finally:
            os.close(fd)
        return entry_of(path, found, link=link)

    def directory(self, path: bytes) -> Entry:
        from lamina.system.xattrs import copied_xattrs

        fd = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            entry = entry_of(path, os.fstat(fd))
            assert entry is not None
            return replace(entry, xattrs=copied_xattrs(fd))
        finally:
            os.close(fd)

    def read_small(self, path: bytes, *, limit: int) -> bytes:
        # O_NONBLOCK: a fifo in the image must not hang the build
        fd = self._open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise LaminaError(f"'/{shown(path)}' is not a regular file", kind=Kind.INVALID)
            data = b""
            while len(data) <= limit and (chunk := os.read(fd, 1 << 16)):
                data += chunk
        finally:
            os.close(fd)
        return _limited(data, path, limit)


class MountedBase(OpenedBase):
    """A mounted tree, looked at through the descriptor of its root, which it owns."""

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd

    def close(self) -> None:
        """Close the root. Idempotent."""
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1

    def _open(self, path: bytes, flags: int) -> int:
        from lamina.system.paths import open_in_root

        return open_in_root(self._root_fd, path, flags, no_symlinks=True)


def entry_of(
    path: bytes,
    status: os.stat_result,
    *,
    link: bytes = b"",
    owner: Owner | None = None,
    mode: int | None = None,
    xattrs: tuple[tuple[bytes, bytes], ...] = (),
) -> Entry | None:
    """The entry for a file's status, `owner` and (but for a link) `mode` overriding its own; None
    for a socket. Its mtime has whole seconds, as in a layer's tar.
    """
    kind = entry_type(status.st_mode)
    if kind is None:
        return None
    is_device = kind is EntryType.CHAR or kind is EntryType.BLOCK
    if kind is EntryType.SYMLINK:
        mode = 0o777
    elif mode is None:
        mode = stat.S_IMODE(status.st_mode)
    uid, gid = owner if owner is not None else (status.st_uid, status.st_gid)
    return Entry(
        path,
        kind,
        mode,
        uid,
        gid,
        status.st_size if kind is EntryType.FILE else 0,
        status.st_mtime_ns // _SECOND * _SECOND,
        link,
        os.major(status.st_rdev) if is_device else 0,
        os.minor(status.st_rdev) if is_device else 0,
        xattrs,
    )


class Lazy(Protocol):
    """Content that is read (and, from a build context, verified) when the layer is written."""

    def head(self, size: int) -> bytes:
        """Up to `size` bytes from the start."""

    def items(self, entry: Entry) -> Iterator[Item]:
        """The item of the entry, once; may check something when the writer is done with it."""


class _Node:
    __slots__ = ("content", "entry", "inode", "is_new_dir")

    def __init__(
        self, entry: Entry, content: Lazy | None, inode: Hashable, *, is_new_dir: bool
    ) -> None:
        self.entry = entry
        self.content = content
        self.inode = inode
        self.is_new_dir = is_new_dir  # a directory where the base has none: hides what was there


class Changes:
    """Paths are relative to the root, without links on the way (see `resolve`)."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._nodes: dict[bytes, _Node] = {}

    # Looking --------------------------------------------------------------------------------

    def resolve(self, path: bytes) -> bytes:
        """Where the path leads in the merged tree; a dangling link leads to what it would make."""
        return resolve(path, self._readlink)

    def _readlink(self, path: bytes) -> bytes | None:
        found = self.lookup(path)
        return found.linkname if found is not None and found.type is EntryType.SYMLINK else None

    def lookup(self, path: bytes) -> Entry | None:
        """What the merged tree has at the path, not followed."""
        node, base = self._find(path)
        if node is not None:
            return node.entry
        return base.lookup(path) if base is not None else None

    def _find(self, path: bytes) -> tuple[_Node | None, Base | None]:
        """What these changes and those below them have at the path, or the base below all of them,
        which decides (None: it is hidden). A loop: there may be thousands one on the other.
        """
        below: Base = self
        while isinstance(below, Changes):
            node = below._nodes.get(path)
            if node is not None:
                return node, None
            if below._hides(path):
                return None, None
            below = below._base
        return None, below

    def _hides(self, path: bytes) -> bool:
        """Whether something above the path in this layer hides the base there."""
        parent = path
        while parent:
            parent = parent.rpartition(b"/")[0]
            node = self._nodes.get(parent)
            if node is not None:
                return node.is_new_dir or node.entry.type is not EntryType.DIR
        return False

    def directory(self, path: bytes) -> Entry:
        node, base = self._find(path)
        if node is not None:
            return node.entry
        assert base is not None, "the caller has looked it up"
        return base.directory(path)

    def read_small(self, path: bytes, *, limit: int) -> bytes:
        node, base = self._find(path)
        if base is not None:
            return base.read_small(path, limit=limit)
        if node is None or node.content is None:
            raise LaminaError(f"'/{shown(path)}' is not a regular file", kind=Kind.INVALID)
        return _limited(node.content.head(limit + 1), path, limit)

    # Changing -------------------------------------------------------------------------------

    def make_directories(
        self, path: bytes, *, owner: Owner, mtime_ns: int, mode: int = 0o755
    ) -> None:
        """Make the directory and its parents where they are missing.

        Raises:
            LaminaError: kind INVALID if something that is not a directory is in the way.
        """
        done = b""
        for part in path.split(b"/") if path else ():
            done = done + b"/" + part if done else part
            found = self.lookup(done)
            if found is None:
                uid, gid = owner
                new = Entry(done, EntryType.DIR, mode, uid=uid, gid=gid, mtime_ns=mtime_ns)
                self._nodes[done] = _Node(new, None, None, is_new_dir=True)
            elif found.type is not EntryType.DIR:
                raise LaminaError(
                    f"cannot make the directory '/{shown(path)}': "
                    f"'/{shown(done)}' is not a directory",
                    kind=Kind.INVALID,
                )

    def put(self, entry: Entry, content: Lazy | None = None, *, inode: Hashable = None) -> None:
        """Put an entry in place; its parents exist. Files with an equal `inode` are hard links.

        A file or link replaces whatever was there; a directory keeps what a directory held.

        Raises:
            LaminaError: kind INVALID for the root, and for a name that layers reserve.
        """
        name = entry.path.rpartition(b"/")[2]
        if name.startswith(WHITEOUT_PREFIX):
            raise LaminaError(
                f"'/{shown(entry.path)}' cannot be in a layer: "
                "names that start with .wh. mark deleted files",
                kind=Kind.INVALID,
            )
        assert entry.path
        before = self.lookup(entry.path)
        was_dir = before is not None and before.type is EntryType.DIR
        is_dir = entry.type is EntryType.DIR
        if was_dir and not is_dir:
            self._drop_below(entry.path)
        known = self._nodes.get(entry.path)
        stays_new = known is not None and known.is_new_dir
        self._nodes[entry.path] = _Node(
            entry, content, inode, is_new_dir=is_dir and (stays_new or not was_dir)
        )

    def link(self, first: bytes, place: bytes) -> bool:
        """Make `place` a hard link of `first`, a file of this layer; False if it is none."""
        known = self._nodes.get(first)
        if known is None or known.entry.type is EntryType.DIR:
            return False
        entry = replace(known.entry, path=place)
        if first == place:
            return True
        self.put(entry, known.content, inode=known.inode)
        return True

    def _drop_below(self, path: bytes) -> None:
        prefix = path + b"/"
        for inner in [known for known in self._nodes if known.startswith(prefix)]:
            del self._nodes[inner]

    # Writing --------------------------------------------------------------------------------

    def items(self) -> Iterator[Item]:
        """The layer's members, sorted; a directory of the base that leads to one is among them,
        as it is in the base, so that a reader of this layer alone keeps its mode and owner.
        """
        entries = {path: node.entry for path, node in self._nodes.items()}
        for path in self._nodes:
            parent = path.rpartition(b"/")[0]
            while parent and parent not in entries:
                entries[parent] = self._base.directory(parent)
                parent = parent.rpartition(b"/")[0]
        first_of: dict[Hashable, bytes] = {}
        for path in sorted(entries, key=sort_key):
            node = self._nodes.get(path)
            if node is None or node.content is None:
                yield entries[path], None
                continue
            if node.inode is not None:
                first = first_of.setdefault(node.inode, path)
                if first != path:
                    yield replace(node.entry, type=EntryType.HARDLINK, size=0, linkname=first), None
                    continue
            yield from node.content.items(node.entry)


def _limited(data: bytes, path: bytes, limit: int) -> bytes:
    if len(data) > limit:
        raise LaminaError(f"'/{shown(path)}' is larger than {limit} bytes", kind=Kind.INVALID)
    return data
