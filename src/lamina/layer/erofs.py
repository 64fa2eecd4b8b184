# SPDX-License-Identifier: Apache-2.0
"""An EROFS index behind the body of a layer's tar: inodes, directories, attributes; no file data.

The file is: 4 KiB with the superblock, the tar as it is, data that the tar does not hold in a
mountable form, inodes, directory blocks. The block size is tar's, 512 bytes, so every member's
content begins at a block. Inodes are the extended form (64 bytes: 32-bit owners, 64-bit sizes,
nanoseconds). Format: Linux fs/erofs/erofs_fs.h and Documentation/filesystems/erofs.rst.
"""

from __future__ import annotations

import os
import stat
import struct

from lamina.layer.entry import Entry, EntryType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Segment = tuple[int, int, int]  # offset in the file, offset in the image, length

BODY = 4096  # where the tar begins
BLOCK = 512  # fs/erofs/super.c takes 2^9 to the page size
_BITS = 9
_MAGIC = 0xE0F5E1E2
_SUPERBLOCK_AT = 1024
# magic, checksum, compatible features, block bits, slots, root, inodes, epoch, its nanoseconds,
# blocks, start of the inodes, of shared attributes, uuid, volume, incompatible features, the rest
_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sI40x")
_CHUNKED_FILE = 0x4  # EROFS_FEATURE_INCOMPAT_CHUNKED_FILE
# format, attributes, mode, -, size, blocks or device, number, uid, gid, mtime, nanoseconds, links
_INODE = struct.Struct("<HHHHQIIIIqII16x")
_EXTENDED = 1
_PLAIN, _INLINE, _CHUNKED = 0 << 1, 2 << 1, 4 << 1
_HOLE = 0xFFFFFFFF
_SLOT = 32  # inodes are numbered by their place, in units of 32 bytes
_FIRST = 64  # number 0 is skipped: readdir(3) hides entries of inode 0
_DIRENT = struct.Struct("<QHBx")
_DIRENT_SIZE = 12
_ATTRIBUTE = struct.Struct("<BBH")
_ATTRIBUTES_HEADER = 12
_PREFIXES = ((b"user.", 1), (b"trusted.", 4), (b"security.", 6))
_MODES = {
    EntryType.FILE: (stat.S_IFREG, 1),
    EntryType.DIR: (stat.S_IFDIR, 2),
    EntryType.CHAR: (stat.S_IFCHR, 3),
    EntryType.BLOCK: (stat.S_IFBLK, 4),
    EntryType.FIFO: (stat.S_IFIFO, 5),
    EntryType.SYMLINK: (stat.S_IFLNK, 7),
}
_OPAQUE = (b"trusted.overlay.opaque", b"y")
_MAX_CHUNKS = 1 << 20  # entries of one file's map: 4 MiB
_PAGE = 4096
_MAX_CHUNK_BITS = 31 + _BITS
_WRITE = 1 << 20


WHITEOUT = Entry(b"", EntryType.CHAR, 0)  # what a node of a whiteout has


class Node:
    """An inode: `children` if it is a directory; where its content is if it is a file.

    `segments` lie in the image; `copy` opens the content of a file from a lower layer. The rest
    belongs to the index writer.
    """

    __slots__ = (
        "attributes",
        "children",
        "copy",
        "entry",
        "links",
        "nid",
        "opaque",
        "segments",
        "size",
    )

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.children: dict[bytes, Node] | None = {} if entry.type is EntryType.DIR else None
        self.opaque = False
        self.segments: tuple[Segment, ...] = ()
        self.copy: Callable[[], int] | None = None
        self.attributes = self.links = self.nid = self.size = 0

    @property
    def is_whiteout(self) -> bool:
        """Whether overlayfs takes it for a whiteout."""
        return self.entry is WHITEOUT


class NotWrappable(Exception):
    """The layer holds something that is not written in this form: it is unpacked instead."""


def write_index(fd: int, root: Node, *, end: int) -> None:
    """Write the index of the tree behind `end` bytes of the image, and the superblock last.

    Raises:
        NotWrappable: an attribute, a file or the whole is too large; nothing is mountable then.
        OSError: as pwrite(2).
    """
    _Index(fd, root, end=end).write()


def _align(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def attribute_code(name: bytes) -> tuple[int, bytes] | None:
    """The number of an attribute's prefix and the rest of its name; None if EROFS has no such."""
    for prefix, code in _PREFIXES:
        if name.startswith(prefix):
            return code, name[len(prefix) :]
    return None


class _Index:
    """The nodes in the order of their inodes, and where everything goes."""

    def __init__(self, fd: int, root: Node, *, end: int) -> None:
        self._fd = fd
        self._root = root
        self._data = _align(end, BLOCK)  # where the next data goes
        self._nodes: list[Node] = []
        self._parents: dict[Node, Node] = {root: root}
        self._blobs: dict[Node, bytes] = {}  # what follows an inode: attributes, target, map
        self._formats: dict[Node, tuple[int, int]] = {}  # data layout and union field
        self._is_chunked = False

    def write(self) -> None:
        self._collect()
        for node in self._nodes:
            self._describe(node)
        os.ftruncate(self._fd, self._data)
        meta = self._data
        length = self._number()
        if (meta + length) // BLOCK >= _HOLE or self._root.nid > 0xFFFF:
            raise NotWrappable("too large")
        directories = _align(meta + length, BLOCK)
        end = self._write_directories(directories)
        self._write_inodes(meta)
        os.ftruncate(self._fd, end)
        self._write_superblock(meta, end)

    def _collect(self) -> None:
        """Every inode once, the root first, with the number of its names."""
        todo = [self._root]
        self._root.links = 2
        while todo:
            node = todo.pop()
            self._nodes.append(node)
            for child in (node.children or {}).values():
                if child.children is not None:
                    child.links = 2
                    node.links += 1
                    self._parents[child] = node
                    todo.append(child)
                    continue
                if not child.links:
                    todo.append(child)
                child.links += 1

    def _describe(self, node: Node) -> None:
        """Decide the inode's layout; data that is not in the tar is written now."""
        entry = node.entry
        blob = _attributes(node)
        layout, field = _PLAIN, 0
        if entry.type is EntryType.SYMLINK:
            target = entry.linkname
            if _INODE.size + len(blob) + len(target) <= BLOCK:
                layout, blob = _INLINE, blob + target
            else:
                field = self._append(target)
        elif entry.type is EntryType.FILE and entry.size:
            if node.copy is not None:
                field = self._copy(node)
            elif len(node.segments) == 1 and node.segments[0][::2] == (0, entry.size):
                field = _block(node.segments[0][1])
            else:
                layout = _CHUNKED
                field, chunks = self._chunks(node)
                blob += chunks
                self._is_chunked = True
        elif entry.type is EntryType.CHAR or entry.type is EntryType.BLOCK:
            major, minor = entry.devmajor, entry.devminor
            field = minor & 0xFF | major << 8 | (minor & ~0xFF) << 12  # new_encode_dev()
        self._formats[node] = layout, field
        self._blobs[node] = blob

    def _append(self, data: bytes) -> int:
        """Write data into blocks of their own; the first one's number."""
        at = self._data
        _pwrite(self._fd, data, at)
        self._data = _align(at + len(data), BLOCK)
        return _block(at)

    def _copy(self, node: Node) -> int:
        """The content of a file of a lower layer, to which this layer has a link."""
        assert node.copy is not None
        start = at = self._data
        source = node.copy()
        try:
            while data := os.read(source, _WRITE):
                _pwrite(self._fd, data, at)
                at += len(data)
        finally:
            os.close(source)
        self._data = _align(at, BLOCK)
        return _block(start)

    def _chunks(self, node: Node) -> tuple[int, bytes]:
        """The map of a sparse file: chunk size (as the inode says it) and one block number each."""
        size, segments = node.entry.size, [s for s in node.segments if s[2]]
        bits = _chunk_bits(size, segments)
        if bits is not None:
            get = dict(_mapped(segments, bits))
        else:
            bits = 12
            if size >> bits > _MAX_CHUNKS:
                raise NotWrappable("a sparse file with unaligned data is too large")
            get = self._realign(segments, size)
        count = _align(size, 1 << bits) >> bits
        numbers = [get.get(index, _HOLE) for index in range(count)]
        return bits - _BITS, struct.pack(f"<{count}I", *numbers)

    def _realign(self, segments: list[Segment], size: int) -> dict[int, int]:
        """Copy the pages that hold data, each with the zeros around it; their block numbers."""
        found: dict[int, int] = {}
        for offset, source, length in segments:
            at, end = offset, offset + length
            while at < end:
                page = at // _PAGE
                if page not in found:
                    found[page] = _block(self._data)
                    _pwrite(self._fd, bytes(min(_PAGE, size - page * _PAGE)), self._data)
                    self._data += _PAGE
                count = min(end, (page + 1) * _PAGE) - at
                data = os.pread(self._fd, count, source + at - offset)
                _pwrite(self._fd, data, found[page] * BLOCK + at % _PAGE)
                at += count
        return found

    def _number(self) -> int:
        """Give every inode its place; the length of all."""
        at = _FIRST
        for node in self._nodes:
            blob = self._blobs[node]
            if self._formats[node][0] == _INLINE:
                tail = len(node.entry.linkname)
                head = _INODE.size + len(blob) - tail
                while (at + head) % BLOCK + tail > BLOCK:  # a tail lies in one block
                    at += _SLOT
            node.nid = at // _SLOT
            at = _align(at + _INODE.size + len(blob), _SLOT)
        return at

    def _write_directories(self, start: int) -> int:
        """Write directory blocks from `start` on, and note them; the end."""
        writer = _Writer(self._fd, start)
        for node in self._nodes:
            if node.children is None:
                continue
            first = writer.at
            for block in _directory(node, self._parents[node]):
                writer.write(block)
            node.size = writer.at - first
            self._formats[node] = _PLAIN, _block(first)
        writer.flush()
        return writer.at

    def _write_inodes(self, start: int) -> None:
        writer = _Writer(self._fd, start)
        for number, node in enumerate(self._nodes, 1):
            entry = node.entry
            layout, field = self._formats[node]
            blob = self._blobs[node]
            seconds, nanoseconds = divmod(entry.mtime_ns, 1_000_000_000)
            size, mode = entry.size, entry.mode
            if node.children is not None:
                size = node.size
            elif entry.type is EntryType.SYMLINK:
                size, mode = len(entry.linkname), 0o777  # as symlink(2) makes it
            inode = _INODE.pack(
                _EXTENDED | layout,
                node.attributes // 4 - 2 if node.attributes else 0,
                _MODES[entry.type][0] | mode,
                0,
                size,
                field,
                number,
                entry.uid,
                entry.gid,
                seconds,
                nanoseconds,
                node.links,
            )
            writer.write(bytes(start + node.nid * _SLOT - writer.at) + inode + blob)
        writer.flush()

    def _write_superblock(self, meta: int, end: int) -> None:
        features = _CHUNKED_FILE if self._is_chunked else 0
        where = (self._root.nid, len(self._nodes), 0, 0, _block(end), _block(meta), 0)
        block = _SUPERBLOCK.pack(_MAGIC, 0, 0, _BITS, 0, *where, b"", b"", features)
        _pwrite(self._fd, block, _SUPERBLOCK_AT)


class _Writer:
    """Appends to the image from `at` on, in large pieces."""

    def __init__(self, fd: int, at: int) -> None:
        self._fd = fd
        self.at = at
        self._parts: list[bytes] = []
        self._length = 0

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self.at += len(data)
        self._length += len(data)
        if self._length >= _WRITE:
            self.flush()

    def flush(self) -> None:
        _pwrite(self._fd, b"".join(self._parts), self.at - self._length)
        self._parts, self._length = [], 0


def _block(offset: int) -> int:
    assert offset % BLOCK == 0
    number = offset >> _BITS
    if number >= _HOLE:
        raise NotWrappable("more than 2 TiB")
    return number


def _pwrite(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, at)
        view, at = view[count:], at + count


def _attributes(node: Node) -> bytes:
    """The attributes behind an inode; their length is noted in `node.attributes`."""
    wanted = [*node.entry.xattrs, _OPAQUE] if node.opaque else node.entry.xattrs
    parts = [bytes(_ATTRIBUTES_HEADER)]
    for name, value in wanted:
        known = attribute_code(name)
        assert known is not None
        code, rest = known
        if len(value) > 0xFFFF:
            raise NotWrappable("an attribute of 64 KiB")
        item = _ATTRIBUTE.pack(len(rest), code, len(value)) + rest + value
        parts.append(item.ljust(_align(len(item), 4), b"\0"))
    if len(parts) == 1:
        return b""
    blob = b"".join(parts)
    if len(blob) // 4 > 0xFFFF:
        raise NotWrappable("too many attributes")
    node.attributes = len(blob)
    return blob


def _chunk_bits(size: int, segments: list[Segment]) -> int | None:
    """The largest chunk size, as a power of two, in which the tar's own data can be mapped.

    None if some data does not lie as the map needs it: then it must be copied.
    """
    bits = _MAX_CHUNK_BITS
    for offset, source, length in segments:
        if source % BLOCK:
            return None
        ends = () if offset + length == size else (offset + length,)
        for number in (offset, *ends):
            if number:
                bits = min(bits, (number & -number).bit_length() - 1)
    bits = min(bits, max(size - 1, 1).bit_length())
    bits = max(bits, _BITS) if not segments else bits
    if bits < _BITS or size >> bits > _MAX_CHUNKS:
        return None
    return bits


def _mapped(segments: list[Segment], bits: int) -> Iterator[tuple[int, int]]:
    for offset, source, length in segments:
        for index in range(_align(length, 1 << bits) >> bits):
            yield (offset >> bits) + index, _block(source + (index << bits))


def _directory(node: Node, parent: Node) -> Iterator[bytes]:
    """The blocks of a directory: entries sorted by name, in each the table and then the names."""
    assert node.children is not None
    entries = [(b".", node), (b"..", parent), *node.children.items()]
    entries.sort(key=_by_name)
    held: list[tuple[bytes, Node]] = []
    used = 0
    for entry in entries:
        need = _DIRENT_SIZE + len(entry[0])
        if used + need > BLOCK:
            yield _directory_block(held)
            held, used = [], 0
        held.append(entry)
        used += need
    yield _directory_block(held)


def _by_name(entry: tuple[bytes, Node]) -> bytes:
    return entry[0]


def _directory_block(entries: list[tuple[bytes, Node]]) -> bytes:
    at = len(entries) * _DIRENT_SIZE
    table = []
    for name, node in entries:
        table.append(_DIRENT.pack(node.nid, at, _MODES[node.entry.type][1]))
        at += len(name)
    return b"".join(table + [name for name, _ in entries]).ljust(BLOCK, b"\0")
