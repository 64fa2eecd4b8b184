# SPDX-License-Identifier: Apache-2.0
"""Tar to entries, from a stream, in flat memory; the input is not trusted.

Reads ustar, pax (local and global headers) and GNU tar (long names, base-256 numbers, sparse files
in all four forms). Whatever the bytes are, the outcome is entries or a LaminaError of kind INVALID:
every length is checked before it is believed, and headers are capped (docs/adr/0010-tar.md).
"""

from __future__ import annotations

import struct

from lamina.errors import Kind, LaminaError
from lamina.layer.entry import Entry, EntryType
from lamina.layer.sparse import MAX_SEGMENTS, Extents, gnu_segments, pax_segments, pax_text_map
from lamina.layer.tarwrite import BLOCK, CHUNK, MAX_PAX, XATTR_RECORD, decode_keyword
from lamina.system.paths import PATH_MAX, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

MAX_META_HEADERS = 16  # extended headers in a row; real archives have at most three
_MAX_SIZE = (1 << 63) - 1
_MAX_ID = (1 << 32) - 2  # (uid_t)-1 means "leave it" to chown(2)
_MAX_MTIME = (1 << 63) // 1_000_000_000 - 1  # seconds; nanoseconds must fit 64 bits
_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")  # POSIX ustar §Header Block
# The same up to the magic, for headers as most writers make them: every number and its end.
_PLAIN = struct.Struct("100s7sB7sB7sB11sB11sB6s2sc100s6s")
_ZERO_BLOCK = bytes(BLOCK)
_USTAR = b"ustar\0"  # followed by the version; GNU tar writes "ustar  \0" and has no prefix field
_TYPES = {t.value.encode(): t for t in EntryType} | {
    b"\0": EntryType.FILE,  # before POSIX; a trailing slash then means a directory
    b"7": EntryType.FILE,  # contiguous file
    b"S": EntryType.FILE,  # GNU sparse
}
_PLAIN_TYPES = {b"0": EntryType.FILE, b"5": EntryType.DIR}
_REFUSED = {
    b"V": "a volume label",
    b"M": "a part of a multi-volume archive",
    b"N": "an old GNU long-name table",
    b"D": "a GNU incremental dump directory",
    b"A": "a Solaris access control list",
    b"E": "a Solaris extended attribute file",
    b"I": "a star inode entry",
}
# pax keywords that a global header must not set: each names one member.
_LOCAL_ONLY = frozenset({b"path", b"linkpath", b"size"})


class InvalidTar(LaminaError):
    """The stream is not a tar archive, is cut short, or holds something a layer cannot have."""

    kind = Kind.INVALID


class _Input:
    """The stream, read in CHUNKs; `offset` is the position in it, for messages."""

    __slots__ = ("_buffer", "_read", "_start", "offset")

    def __init__(self, stream: IO[bytes]) -> None:
        self._read = stream.read
        self._buffer = b""
        self._start = 0
        self.offset = 0

    def some(self, limit: int) -> bytes:
        """Between 1 and `limit` bytes; empty at the end of the stream."""
        start = self._start
        if start == len(self._buffer):
            self._buffer, start = self._read(CHUNK), 0
        data = self._buffer[start : start + limit]
        self._start = start + len(data)
        self.offset += len(data)
        return data

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes; fewer only at the end of the stream."""
        start = self._start
        data = self._buffer[start : start + size]
        if len(data) == size:
            self._start = start + size
            self.offset += size
            return data
        parts = []
        while size and (data := self.some(size)):
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def skip(self, size: int) -> bool:
        """Pass over `size` bytes; False if the stream ends before."""
        end = self._start + size
        if end <= len(self._buffer):
            self._start = end
            self.offset += size
            return True
        while size:
            data = self.some(min(size, CHUNK))
            if not data:
                return False
            size -= len(data)
        return True


class EntryReader:
    """The content of one entry; valid until the next entry is asked for."""

    __slots__ = ("_input", "_left", "_path")

    def __init__(self, source: _Input, size: int, path: bytes) -> None:
        self._input = source
        self._left = size  # bytes of it that the archive still holds
        self._path = path

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, all that is left if negative; empty at the end.

        Raises:
            InvalidTar: the archive ends before the content does.
        """
        left = self._left
        if size < 0 or size > left:
            size = left
        if not size:
            return b""
        data = self._input.take(size) if size <= CHUNK else self._input.some(size)
        if not data or (size <= CHUNK and len(data) < size):
            raise _truncated(self._path)
        self._left = left - len(data)
        if size > CHUNK and size == left and len(data) < size:
            return data + self._rest()
        return data

    def _rest(self) -> bytes:
        parts = []
        while self._left:
            parts.append(self.read(min(self._left, CHUNK)))
        return b"".join(parts)

    def hole(self) -> int:
        """If the next bytes are a hole of a sparse file: pass over it and return its length."""
        return 0

    def segments(self, base: int) -> tuple[tuple[int, int, int], ...]:
        """Where the content lies, if nothing of it was read: offset in the file, `base` plus offset
        in the archive, length; in order.
        """
        return ((0, base + self._input.offset, self._left),) if self._left else ()

    def close(self) -> None:
        """Pass over what was not read."""
        left, self._left = self._left, 0
        if left and not self._input.skip(left):
            raise _truncated(self._path)


class SparseReader(EntryReader):
    """The content of a sparse file: the holes are read as zeros, or passed over with `hole`."""

    __slots__ = ("_extents",)

    def __init__(self, source: _Input, size: int, path: bytes, extents: Extents) -> None:
        super().__init__(source, size, path)
        self._extents = extents

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            parts = []
            while data := self.read(CHUNK):
                parts.append(data)
            return b"".join(parts)
        hole = self._extents.hole()
        if hole:
            return bytes(self._extents.pass_hole(min(size, hole, CHUNK)))
        data = super().read(min(size, self._extents.data(), CHUNK))
        self._extents.pass_data(len(data))
        return data

    def hole(self) -> int:
        return self._extents.pass_hole(self._extents.hole())

    def segments(self, base: int) -> tuple[tuple[int, int, int], ...]:
        found = []
        at = base + self._input.offset
        for offset, length in self._extents.segments:
            found.append((offset, at, length))
            at += length
        return tuple(found)


def _truncated(path: bytes) -> InvalidTar:
    return InvalidTar(f"tar archive ends in the middle of {shown(path)}")


def read_tar(stream: IO[bytes]) -> Iterator[tuple[Entry, EntryReader]]:
    """The entries of an uncompressed tar archive in their order, each with its content.

    Names are made relative to the root: leading `/`, `.` and `..` components go, as in a root
    directory that cannot be left. Nothing is read after the two zero blocks that end an archive;
    a stream that just ends there is accepted, as every tar program does. A reader is valid until
    the next entry is asked for; what was not read is passed over.

    Raises:
        InvalidTar: see the module; whatever `stream.read` raises.
    """
    source = _Input(stream)
    globals_: dict[bytes, bytes] = {}
    while True:
        block = source.take(BLOCK)
        entry = None if globals_ or len(block) < BLOCK else _plain_entry(block)
        if entry is not None:
            size = entry.size
            reader, padding = EntryReader(source, size, entry.path), -size % BLOCK
        else:
            member = _Member(source, globals_)
            own = member.read_headers(block)
            if own is None:
                while source.some(CHUNK):
                    pass
                return
            entry, reader, padding = member.entry(own)
        yield entry, reader
        reader.close()
        if padding and not source.skip(padding):
            raise _truncated(entry.path)


def _plain_entry(block: bytes) -> Entry | None:
    """The entry of an ordinary file or directory, which most are; None if it is anything else.

    Gives what `_Member` gives for it, in a third of the time. Damage is left to `_Member` too.
    """
    (name, mode, a, uid, b, gid, c, size, d, mtime, e, checksum, end, flag, _, magic) = (
        _PLAIN.unpack_from(block)
    )
    kind = _PLAIN_TYPES.get(flag)
    if (
        kind is None
        or magic != _USTAR
        or (a | b | c | d | e) & ~0x20  # numbers end in NUL or a space
        or end != b"\0 "
        or block[345]  # a prefix
        or not (mode + uid + gid + size + mtime + checksum).isdigit()
    ):
        return None
    try:
        expected = int(checksum, 8)
        numbers = int(mode, 8), int(uid, 8), int(gid, 8), int(size, 8), int(mtime, 8)
    except ValueError:  # the digits 8 and 9
        return None
    if sum(block) - sum(checksum) - 0x20 + 8 * 0x20 != expected:
        return None
    path = _clean(name.split(b"\0", 1)[0])
    if not path:
        return None
    length = numbers[3] if kind is EntryType.FILE else 0
    return Entry(
        path, kind, numbers[0] & 0o7777, numbers[1], numbers[2], length, numbers[4] * 1_000_000_000
    )


class _Member:
    """One member being read: its extended headers, then the header that they extend."""

    __slots__ = ("_globals", "_link", "_path", "_records", "_source", "_sparse")

    def __init__(self, source: _Input, globals_: dict[bytes, bytes]) -> None:
        self._source = source
        self._globals = globals_
        self._records: dict[bytes, bytes] = {}
        self._sparse: list[tuple[bytes, bytes]] = []  # repeated records of GNU sparse format 0.0
        self._path = b""  # of a GNU `L` header; an empty one says nothing, as for Go
        self._link = b""  # of a GNU `K` header

    def read_headers(self, block: bytes) -> bytes | None:
        """The member's own header block, `block` or a later one; None at the end of the archive."""
        for count in range(MAX_META_HEADERS + 1):
            if count:
                block = self._source.take(BLOCK)
            if not block or block == _ZERO_BLOCK:
                if count:
                    raise InvalidTar("tar archive ends after an extended header")
                self._check_end(block)
                return None
            _check_block(block, self._source.offset)
            flag = block[156:157]
            if flag in {b"x", b"X"}:
                self._read_pax(self._meta(block), records=self._records)
            elif flag == b"g":
                self._read_global(self._meta(block))
            elif flag == b"L":
                self._path = _text(self._meta(block))
            elif flag == b"K":
                self._link = _text(self._meta(block))
            else:
                return block
        raise InvalidTar(f"more than {MAX_META_HEADERS} extended headers in a row")

    def _check_end(self, block: bytes) -> None:
        if not block:
            return
        second = self._source.take(BLOCK)
        if second and second != _ZERO_BLOCK:
            raise InvalidTar(
                f"tar header at byte {self._source.offset - BLOCK} follows a zero block"
            )

    def _meta(self, block: bytes) -> bytes:
        """The content of an extended header."""
        size = _number(block[124:136], "size")
        if not 0 <= size <= MAX_PAX:
            raise InvalidTar(f"extended tar header of {size} bytes: the limit is {MAX_PAX}")
        data = self._source.take(size)
        if len(data) != size or not self._source.skip(-size % BLOCK):
            raise InvalidTar("tar archive ends in the middle of an extended header")
        return data

    def _read_global(self, body: bytes) -> None:
        records: dict[bytes, bytes] = {}
        self._read_pax(body, records=records)
        for key, value in records.items():
            if key in _LOCAL_ONLY or key.startswith(b"GNU.sparse."):
                raise InvalidTar(f"global pax header sets {shown(key)}, which names one member")
            self._globals[key] = value

    def _read_pax(self, body: bytes, *, records: dict[bytes, bytes]) -> None:
        r"""Records of `LENGTH key=value\\n`; later ones win, values are raw bytes."""
        at = 0
        while at < len(body):
            space = body.find(b" ", at, at + 20)
            digits = body[at:space] if space > 0 else b""
            end = at + int(digits) if digits.isdigit() else 0
            if not space + 1 < end <= len(body) or body[end - 1] != 0x0A:
                raise InvalidTar("malformed record in a pax header")
            key, equals, value = body[space + 1 : end - 1].partition(b"=")
            if not key or not equals or b"\0" in key:
                raise InvalidTar("malformed record in a pax header")
            if key in {b"GNU.sparse.offset", b"GNU.sparse.numbytes"}:
                self._sparse.append((key, value))
                if len(self._sparse) > 2 * MAX_SEGMENTS:
                    raise InvalidTar("sparse file with too many segments")
            records[key] = value
            at = end

    def _record(self, key: bytes) -> bytes | None:
        """The pax record that is in force; an empty one means that there is none."""
        value = self._records.get(key)
        if value is None:
            value = self._globals.get(key)
        return value or None

    def entry(self, block: bytes) -> tuple[Entry, EntryReader, int]:
        """The entry, its content, and the number of padding bytes after it."""
        fields = _FIELDS.unpack(block)
        flag = fields[7]
        kind = _TYPES.get(flag)
        path = self._member_path(fields, block)
        if kind is None:
            raise _refused(flag, path)
        if flag == b"\0" and path.endswith(b"/"):
            kind = EntryType.DIR
        name = _clean(path)
        if not name and kind is not EntryType.DIR:
            what = shown(path) if path else "a member without a name"
            raise InvalidTar(f"{what} is not a directory but names the root of the archive")
        stored = self._size(fields) if kind is EntryType.FILE else 0  # others have no content
        reader, size = self._content(block, stored=stored, name=name, flag=flag)
        device = kind in {EntryType.CHAR, EntryType.BLOCK}
        entry = Entry(
            self._sparse_name(name),
            kind,
            _number(fields[1], "mode") & 0o7777,
            self._id(b"uid", fields[2]),
            self._id(b"gid", fields[3]),
            size,
            self._mtime(fields[5]),
            self._linkname(kind, fields[8], name),
            _device(fields[12]) if device else 0,
            _device(fields[13]) if device else 0,
            self._xattrs(),
        )
        return entry, reader, -stored % BLOCK

    def _member_path(self, fields: tuple[bytes, ...], block: bytes) -> bytes:
        path = self._record(b"path") or self._path
        if not path:
            path = _text(fields[0])
            # star's variant of ustar keeps times in the last bytes of the prefix field.
            prefix = fields[14][:131] if block[508:512] == b"tar\0" else fields[14]
            if fields[9].startswith(_USTAR) and prefix[0]:
                path = _text(prefix) + b"/" + path
        if b"\0" in path:
            raise InvalidTar(f"NUL byte in the name {shown(path[:200])}")
        if len(path) >= PATH_MAX:
            raise InvalidTar(f"name of {len(path)} bytes: the limit is {PATH_MAX - 1}")
        return path

    def _sparse_name(self, name: bytes) -> bytes:
        """GNU tar hides a sparse file's name from readers that would not expand it."""
        real = self._record(b"GNU.sparse.name")
        if real is None:
            return name
        if b"\0" in real or len(real) >= PATH_MAX or not (cleaned := _clean(real)):
            raise InvalidTar(f"invalid name of a sparse file: {shown(real[:200])}")
        return cleaned

    def _linkname(self, kind: EntryType, field: bytes, name: bytes) -> bytes:
        if kind is not EntryType.SYMLINK and kind is not EntryType.HARDLINK:
            return b""
        link = self._record(b"linkpath") or self._link or _text(field)
        if not link or b"\0" in link or len(link) >= PATH_MAX:
            raise InvalidTar(f"{shown(name)} has a link target that is empty, too long or has NUL")
        if kind is EntryType.SYMLINK:
            return link
        target = _clean(link)
        if not target:
            raise InvalidTar(f"{shown(name)} is a hard link to the root directory")
        return target

    def _size(self, fields: tuple[bytes, ...]) -> int:
        text = self._record(b"size")
        size = _number(fields[4], "size") if text is None else _decimal(text, "size")
        if not 0 <= size <= _MAX_SIZE:
            raise InvalidTar(f"invalid size {size}")
        return size

    def _id(self, key: bytes, field: bytes) -> int:
        text = self._record(key)
        number = _number(field, key.decode()) if text is None else _decimal(text, key.decode())
        if not 0 <= number <= _MAX_ID:
            raise InvalidTar(f"invalid {key.decode()} {number}")
        return number

    def _mtime(self, field: bytes) -> int:
        """Nanoseconds."""
        text = self._record(b"mtime")
        if text is None:
            seconds = _number(field, "mtime")
            nanoseconds = seconds * 1_000_000_000
        else:
            nanoseconds = _decimal_time(text)
            seconds = nanoseconds // 1_000_000_000
        if abs(seconds) > _MAX_MTIME:
            raise InvalidTar(f"invalid mtime {seconds}")
        return nanoseconds

    def _xattrs(self) -> tuple[tuple[bytes, bytes], ...]:
        if not self._records and not self._globals:
            return ()
        start = len(XATTR_RECORD)
        found = []
        for key, value in (self._globals | self._records).items():
            if key.startswith(XATTR_RECORD):
                name = decode_keyword(key[start:])
                if not name or b"\0" in name:
                    raise InvalidTar("extended attribute without a name")
                found.append((name, value))
        return tuple(sorted(found))

    def _content(
        self, block: bytes, *, stored: int, name: bytes, flag: bytes
    ) -> tuple[EntryReader, int]:
        """The reader of the content and the file's size, which differs for sparse files."""
        segments = None
        size = left = stored
        if flag == b"S":
            size, segments = gnu_segments(block, self._source.take)
        elif self._record(b"GNU.sparse.major") == b"1":
            size = _decimal(self._record(b"GNU.sparse.realsize") or b"", "sparse size")
            segments, used = pax_text_map(self._source.take, limit=stored)
            left -= used
        elif (text := self._record(b"GNU.sparse.size")) is not None:
            size = _decimal(text, "sparse size")
            segments = pax_segments(self._record(b"GNU.sparse.map"), self._sparse)
        if segments is None:
            return EntryReader(self._source, stored, name), stored
        if not 0 <= size <= _MAX_SIZE:
            raise InvalidTar(f"invalid size {size}")
        extents = Extents(segments, size=size, stored=left)
        return SparseReader(self._source, left, name, extents), size


def begins_tar(block: bytes) -> bool:
    """Whether the block is a tar header: its checksum is right."""
    try:
        _check_block(block, BLOCK)
    except InvalidTar:
        return False
    return True


def _refused(flag: bytes, path: bytes) -> InvalidTar:
    what = _REFUSED.get(flag, f"of unknown type {shown(flag)}")
    return InvalidTar(f"{shown(path)} is {what}, which a layer cannot hold")


def _check_block(block: bytes, offset: int) -> None:
    """Raise InvalidTar unless the block's checksum is right."""
    if len(block) < BLOCK:
        raise InvalidTar("tar archive ends in the middle of a header")
    field = block[148:156]
    expected = _number(field, "checksum")
    unsigned = sum(block) - sum(field) + 8 * 0x20
    if expected != unsigned:
        # Some old tars summed the bytes as signed ones (GNU tar and Go's archive/tar accept both).
        signed = unsigned - 256 * sum(b > 127 for b in block[:148] + block[156:])
        if expected != signed:
            raise InvalidTar(f"no tar header at byte {offset - BLOCK}: the checksum is wrong")


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _number(field: bytes, name: str) -> int:
    """A numeric field: octal text, or GNU's base-256 if the first bit is set."""
    first = field[0]
    if first >= 0x80:
        value = int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
        # The second bit of the first byte is the sign of a two's complement number.
        return value - (1 << (8 * len(field) - 1)) if first & 0x40 else value
    digits = field.strip(b" \0")
    if not digits:
        return 0
    # int() is more generous than tar: no signs, underscores or inner white space here.
    try:
        if digits.isdigit():
            return int(digits, 8)
    except ValueError:  # the digits 8 and 9
        pass
    if digits == field.split(b"\0", 1)[0].strip(b" "):
        raise InvalidTar(f"invalid {name} in a tar header: {shown(field)}")
    return _number(field.split(b"\0", 1)[0].ljust(len(field), b"\0"), name)


def _device(field: bytes) -> int:
    number = _number(field, "device number")
    if not 0 <= number <= 0xFFFFFFFF:
        raise InvalidTar(f"invalid device number {number}")
    return number


def _decimal(text: bytes, name: str) -> int:
    if not text.isdigit() or len(text) > 20:
        raise InvalidTar(f"invalid {name} in a pax header: {shown(text[:40])}")
    return int(text)


def _decimal_time(text: bytes) -> int:
    """Decimal seconds with an optional sign and fraction, in nanoseconds (further digits cut)."""
    sign = -1 if text.startswith(b"-") else 1
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    if not (whole + fraction).isdigit() or len(whole) > 20:
        raise InvalidTar(f"invalid time in a pax header: {shown(text[:40])}")
    return sign * (int(whole or b"0") * 1_000_000_000 + int(fraction[:9].ljust(9, b"0")))


def _clean(path: bytes) -> bytes:
    """The path relative to the root, without `.`, `..` and empty components."""
    if b"." not in path and b"//" not in path:
        return path.strip(b"/")
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part and part != b".":
            parts.append(part)
    return b"/".join(parts)
