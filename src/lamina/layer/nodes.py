# SPDX-License-Identifier: Apache-2.0
"""A layer placed in memory: the tree that `place.Tree` would make, without making it.

The rules are those of `place` (docs/adr/0012-apply.md), step for step: links on the way are
resolved with the layer as the root, what the layer lacks is asked of the layers below, later
entries win. A property test compares the two.
"""

from __future__ import annotations

import errno
import os

from lamina.layer.entry import Entry, EntryType, join, resolve, split
from lamina.layer.erofs import WHITEOUT, Node, NotWrappable, attribute_code
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
from lamina.layer.walk import item_at
from lamina.start.record import replace
from lamina.system.paths import NAME_MAX, failure, shown
from lamina.system.xattrs import CAPABILITY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.layer.entry import Item
    from lamina.layer.erofs import Segment

_MAX_MAJOR, _MAX_MINOR = 0xFFF, 0xFFFFF  # of a device number in Linux (kdev_t.h)
_MAX_NAME = 255  # XATTR_NAME_MAX
_CAPABILITY_SIZES = frozenset({20, 24})  # linux/capability.h: revisions 2 and 3


class NodeTree:
    """The layer's tree. `place` entries in their order, then `finish`."""

    def __init__(self, lowers: Lowers) -> None:
        self.root = Node(Entry(b"", EntryType.DIR, 0o755))
        self._has_root = False
        self._lowers = lowers
        self._directories: dict[bytes, Node] = {}  # real directories that were walked to
        self._opaque: set[bytes] = set()
        self._whiteouts: set[bytes] = set()

    def place(self, entry: Entry, segments: tuple[Segment, ...]) -> None:
        """Add what the entry says; a file's content lies in `segments`.

        Raises:
            LaminaError: INVALID, as `place.Tree.place`; what reading the layers below raises.
            NotWrappable: only unpacking can tell what becomes of it.
        """
        try:
            node = self._place(entry)
        except OSError as error:
            raise failure(error, f"cannot create {shown(entry.path)}") from error
        if node is not None:
            node.segments = segments

    def finish(self) -> None:
        """Complete the root, and drop whiteouts that hide nothing."""
        if not self._has_root:
            below = self._below(b"")
            if below is not None:
                self.root.entry = replace(_kept(below[0]), path=b"")
        for path in self._whiteouts:
            if not is_hidden(path, self._opaque):
                continue
            parent, name = split(path)
            above = self._find(parent)
            if above is not None and name in above and above[name].is_whiteout:
                del above[name]

    def _place(self, entry: Entry) -> Node | None:
        """The node of a file that was made; None for anything else."""
        path = entry.path
        if not path:
            self.root.entry = _kept(entry)
            self._has_root = True
            return None
        parent, name = split(path)
        check_name(path, name)
        directory, above = self._resolve(parent)
        hidden = hidden_name(path, name)
        if hidden is not None:
            self._whiteout(directory, hidden)
            return None
        place = join(directory, name)
        match entry.type:
            case EntryType.FILE:
                return self._put(above, place, Node(_kept(entry)))
            case EntryType.DIR:
                self._directory(entry, above, place)
            case EntryType.HARDLINK:
                self._hardlink(entry, above, place)
            case EntryType.CHAR | EntryType.BLOCK:
                check_device(entry)
                if entry.devmajor > _MAX_MAJOR or entry.devminor > _MAX_MINOR:
                    raise NotWrappable("a device number that mknod may refuse")
                self._put(above, place, Node(_kept(entry)))
            case EntryType.SYMLINK | EntryType.FIFO:
                self._put(above, place, Node(_kept(entry)))
        return None

    def _put(self, above: dict[bytes, Node], path: bytes, node: Node) -> Node:
        name = split(path)[1]
        self._clear(above, name)
        above[name] = node
        return node

    def _clear(self, above: dict[bytes, Node], name: bytes) -> None:
        old = above.get(name)
        if old is not None and old.children is not None:
            self._directories.clear()

    # Directories on the way

    def _resolve(self, path: bytes) -> tuple[bytes, dict[bytes, Node]]:
        """The real directory that `path` leads to, made if missing, and what it holds."""
        known = self._directories.get(path) if path else self.root
        if known is not None:
            return path, _children(known)
        at = resolve(path, self._enter)
        return at, _children(self._real(at))

    def _real(self, path: bytes) -> Node:
        """A directory of this layer."""
        node = self._directories.get(path) if path else self.root
        if node is None:
            node = self.root
            for part in path.split(b"/"):
                node = _children(node)[part]
            self._directories[path] = node
        return node

    def _find(self, path: bytes) -> dict[bytes, Node] | None:
        """What a directory of this layer holds; None if it is no such directory any more."""
        node: Node | None = self.root
        for part in path.split(b"/") if path else ():
            node = node.children.get(part) if node is not None and node.children else None
        return node.children if node is not None else None

    def _enter(self, path: bytes) -> bytes | None:
        """Make sure that the directory `path` is there; its target if it is a link."""
        if path in self._directories:
            return None
        parent, name = split(path)
        _check_length(name)
        above = _children(self._real(parent))
        node = above.get(name)
        if node is None:
            found = self._below(path)
            entry = Entry(path, EntryType.DIR, 0o755)
            if found is not None and found[0].type is EntryType.SYMLINK:
                return found[0].linkname
            if found is not None and found[0].type is EntryType.DIR:
                entry = _kept(found[0])
            node = above[name] = Node(entry)
        elif node.entry.type is EntryType.SYMLINK:
            return node.entry.linkname
        elif node.is_whiteout:
            node = above[name] = Node(Entry(path, EntryType.DIR, 0o755))
            self._make_opaque(path, node)
        elif node.children is None:
            raise not_a_directory(path)
        self._directories[path] = node
        return None

    def _below(self, path: bytes) -> Item | None:
        """The item that the layers below show at a real path of this layer."""
        if is_hidden(path, self._opaque):
            return None
        found = self._lowers.lookup(path)
        if found is None:
            return None
        root, status = found
        return item_at(root, path, status=status, keep=is_not_private)

    def _make_opaque(self, path: bytes, node: Node) -> None:
        node.opaque = True
        self._opaque.add(path)

    # Entries

    def _whiteout(self, directory: bytes, hidden: bytes) -> None:
        if hidden:
            self._hide(join(directory, hidden))
        elif directory:
            self._make_opaque(directory, self._real(directory))
        else:  # overlayfs has no opaque root: hide name by name
            for name in self._lowers.names():
                self._hide(name)

    def _hide(self, path: bytes) -> None:
        parent, name = split(path)
        above = _children(self._real(parent))
        node = above.get(name)
        if node is None:
            if self._below(path) is not None:
                above[name] = Node(WHITEOUT)
                self._whiteouts.add(path)
        elif node.children is not None:
            self._make_opaque(path, node)

    def _directory(self, entry: Entry, above: dict[bytes, Node], path: bytes) -> None:
        name = split(path)[1]
        node = above.get(name)
        if node is None:
            above[name] = Node(_kept(entry))
        elif node.children is not None:
            node.entry = _kept(entry)
        else:  # what was here hid a directory below; the new one must not show it again
            above[name] = Node(_kept(entry))
            self._make_opaque(path, above[name])

    def _hardlink(self, entry: Entry, above: dict[bytes, Node], path: bytes) -> None:
        parent, name = split(entry.linkname)
        directory, holds = self._resolve(parent)
        source = join(directory, name)
        _check_length(name)
        node = holds.get(name)
        if node is None:
            below = self._below(source)
            if below is not None and below[0].type is not EntryType.DIR:
                self._copy_up(below)
                node = self._resolve(directory)[1].get(name)
        if node is None or node.children is not None or node.is_whiteout:
            raise invalid_link(entry)
        if source == path:
            return
        check_link_room(entry, path, source)
        self._put(above, path, node)

    def _copy_up(self, item: Item) -> None:
        entry, content = item
        made = self._place(entry)
        if made is not None and entry.size:
            assert callable(content)
            made.copy = content


def _children(node: Node) -> dict[bytes, Node]:
    assert node.children is not None
    return node.children


def _check_length(name: bytes) -> None:
    """What open(2) says of a name that a link's target holds."""
    if len(name) > NAME_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def _kept(entry: Entry) -> Entry:
    """The entry with the attributes that unpacking it would set."""
    if not entry.xattrs:
        return entry
    kept = tuple((name, value) for name, value in entry.xattrs if _keeps(entry, name, value))
    return replace(entry, xattrs=kept)


def _keeps(entry: Entry, name: bytes, value: bytes) -> bool:
    if not is_not_private(name):
        return False
    known = attribute_code(name)
    if known is None:
        if name.startswith(b"system."):
            raise NotWrappable("an access control list")  # it changes the mode as it is set
        return False  # no filesystem has it
    if not known[1] or len(name) > _MAX_NAME:
        raise NotWrappable("an attribute that the kernel may refuse")
    if name == CAPABILITY and len(value) not in _CAPABILITY_SIZES:
        raise NotWrappable("capabilities that the kernel refuses")
    # xattr(7): only files and directories have these
    return not name.startswith(b"user.") or entry.type in {EntryType.FILE, EntryType.DIR}
