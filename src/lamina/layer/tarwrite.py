# SPDX-License-Identifier: Apache-2.0
"""Entries to tar: the same items give the same bytes on any machine (docs/adr/0010-tar.md).

ustar headers without user or group names; a pax header in front only where ustar cannot say it
(long or non-ASCII names, big numbers, times before 1970, xattrs); mtimes in whole seconds.
"""

from __future__ import annotations

import os

from lamina.errors import Kind, LaminaError
from lamina.layer.entry import EntryType
from lamina.system.paths import PATH_MAX, failure, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lamina.layer.entry import Content, Entry, Items, Stream

BLOCK = 512
CHUNK = 1 << 20  # bytes handed to `write` at a time, about
END_OF_ARCHIVE = bytes(2 * BLOCK)
MAX_PAX = 1 << 20  # the reader's cap too; Go's archive/tar has the same
XATTR_RECORD = b"SCHILY.xattr."  # star's keyword, which Docker, containerd and GNU tar use

_MAX_OCTAL_8 = 0o7777777
_MAX_OCTAL_12 = 0o77777777777
_PAX_NAME = b"././@PaxHeader"
_SECOND = 1_000_000_000
_PADDING = bytes(BLOCK)


class Chunks:
    """Fills buffers of CHUNK bytes. A full one goes to `write`, then `take` gives the next.

    The buffers have one byte more than CHUNK, where a file that grew shows its next byte.
    """

    __slots__ = ("_at", "_buffer", "_take", "_write", "total")

    def __init__(self, write: Callable[[bytes], object], take: Callable[[], bytearray]) -> None:
        self._write = write
        self._take = take
        self._buffer = memoryview(take())
        self._at = 0
        self.total = 0  # bytes handed over

    @property
    def offset(self) -> int:
        """How many bytes came so far."""
        return self.total + self._at

    def add(self, data: bytes) -> None:
        """Append `data`, of any length."""
        end = self._at + len(data)
        if end < CHUNK:
            self._buffer[self._at : end] = data
            self._at = end
            return
        rest = memoryview(data)
        while rest:
            piece = rest[: CHUNK - self._at]
            self._buffer[self._at : self._at + len(piece)] = piece
            self._filled(len(piece))
            rest = rest[len(piece) :]

    def read(self, fd: int, wanted: int) -> int:
        """Append up to `wanted` bytes of a file; how many it gave: one too many if it has more."""
        fitting = min(wanted, CHUNK - self._at)
        # One byte more than expected tells a file that grew, without another system call.
        asked = fitting + (fitting == wanted)
        count = os.readv(fd, (self._buffer[self._at : self._at + asked],))
        if count <= fitting:
            self._filled(count)
        return count

    def _filled(self, count: int) -> None:
        self._at += count
        if self._at == CHUNK:
            self._hand_over()
            self._buffer = memoryview(self._take())

    def finish(self) -> None:
        """Hand over what is left."""
        if self._at:
            self._hand_over()

    def _hand_over(self) -> None:
        self._write(self._buffer[: self._at])  # type: ignore[arg-type]  # a view, see write_tar
        self.total += self._at
        self._at = 0


def write_tar(
    items: Items,
    write: Callable[[bytes], object],
    *,
    clamp_mtime: int | None = None,
    take: Callable[[], bytearray] | None = None,
    member: Callable[[Entry, int], object] | None = None,
) -> int:
    """Write `items` in their order as a tar archive; the number of bytes written.

    `write` gets pieces of CHUNK bytes and a last one that may be shorter. They are views of a
    buffer that is filled anew afterwards, unless `take` gives another one (of `new_buffer`).
    An mtime above `clamp_mtime` (POSIX seconds) becomes it; fractions of a second are cut off.
    `member` is told of each entry and the offset at which its content begins, before it is written.

    Raises:
        LaminaError: CONFLICT if a file's content is not as long as its entry says, INVALID for an
            entry that tar cannot hold; what reading a file raised.
    """
    if take is None:
        only = new_buffer()
        take = lambda: only  # noqa: E731
    chunks = Chunks(write, take)
    add = chunks.add
    for entry, content in items:
        add(header(entry, clamp_mtime=clamp_mtime))
        if member is not None:
            member(entry, chunks.offset)
        size = entry.size
        if size:
            if callable(content):
                _add_file(chunks, entry, content)
            else:
                for piece in _pieces(entry, content):
                    add(piece)
            add(_PADDING[: -size % BLOCK])
    add(END_OF_ARCHIVE)
    chunks.finish()
    return chunks.total


def new_buffer() -> bytearray:
    """An empty buffer for `write_tar`."""
    return bytearray(CHUNK + 1)


def _add_file(chunks: Chunks, entry: Entry, open: Callable[[], int]) -> None:
    """The content of a file, exactly `entry.size` bytes of it."""
    left = entry.size
    try:
        fd = open()
        try:
            while left:
                count = chunks.read(fd, left)
                if not 0 < count <= left:
                    raise _changed(entry, entry.size - left + count)
                left -= count
        finally:
            os.close(fd)
    except OSError as error:
        raise failure(error, f"cannot read {shown(entry.path)}") from error


def small_content(entry: Entry, content: Content) -> bytes:
    """The whole content of a file below CHUNK."""
    if not callable(content):
        return b"".join(_pieces(entry, content))
    size = entry.size
    try:
        fd = content()
        try:
            data = os.read(fd, size + 1)
            while len(data) < size and (piece := os.read(fd, size + 1 - len(data))):
                data += piece
        finally:
            os.close(fd)
    except OSError as error:
        raise failure(error, f"cannot read {shown(entry.path)}") from error
    if len(data) != size:
        raise _changed(entry, len(data))
    return data


def _pieces(entry: Entry, content: bytes | Stream | None) -> Iterator[bytes]:
    """Content that is no file, exactly `entry.size` bytes of it, in pieces of at most CHUNK."""
    if content is None:
        raise _changed(entry, 0)
    if isinstance(content, bytes):
        if len(content) != entry.size:
            raise _changed(entry, len(content))
        yield content
        return
    left = entry.size
    while left:
        # One byte more than expected tells a stream that grew, without a second call for small ones.
        data = content.read(min(left + 1, CHUNK))
        if not data or len(data) > left:
            raise _changed(entry, entry.size - left + len(data))
        left -= len(data)
        yield data
    if entry.size >= CHUNK and content.read(1):
        raise _changed(entry, entry.size + 1)


def _changed(entry: Entry, found: int) -> LaminaError:
    more = "or more " if found > entry.size else ""
    return LaminaError(
        f"{shown(entry.path)} changed while it was read: {entry.size} bytes expected, "
        f"{found} {more}found",
        kind=Kind.CONFLICT,
        hint="make sure that nothing writes to the files while the layer is made",
    )


def header(entry: Entry, *, clamp_mtime: int | None = None) -> bytes:
    """The header blocks of an entry: one ustar block, with pax blocks in front if needed."""
    mtime = entry.mtime_ns // _SECOND
    if clamp_mtime is not None and mtime > clamp_mtime:
        mtime = clamp_mtime
    return _plain(entry, mtime) or _full(entry, mtime)


def _plain(entry: Entry, mtime: int) -> bytes | None:
    """The header of an ordinary file or directory, which most are; None if it is not one.

    Gives what `_full` gives, in a third of the time.
    """
    path = entry.path
    back = _PLAIN_BACKS.get(entry.type)
    if (
        back is None
        or entry.xattrs
        or not 0 < len(path) < 100
        or not path.isascii()
        or b"\0" in path
        or (entry.uid | entry.gid) > _MAX_OCTAL_8
        or entry.size > _MAX_OCTAL_12
        or not 0 <= mtime <= _MAX_OCTAL_12
    ):
        return None
    if entry.type is EntryType.DIR:
        path += b"/"
    numbers = (entry.mode, entry.uid, entry.gid, entry.size, mtime)
    front = path.ljust(100, b"\0") + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % numbers
    return b"%b%06o\0 %b" % (front, sum(front) + back[1], back[0])


def _full(entry: Entry, mtime: int) -> bytes:
    path, link = _names(entry)
    uid, gid, size = entry.uid, entry.gid, entry.size
    records: dict[bytes, bytes] = {}
    name, prefix = path, b""
    if len(path) > 100 or not path.isascii():
        name, prefix = _split_name(path)
        if not name:
            name, records[b"path"] = path[:100], path
    if len(link) > 100 or not link.isascii():
        link, records[b"linkpath"] = link[:100], link
    if uid > _MAX_OCTAL_8:
        uid, records[b"uid"] = 0, b"%d" % uid
    if gid > _MAX_OCTAL_8:
        gid, records[b"gid"] = 0, b"%d" % gid
    if size > _MAX_OCTAL_12:
        size, records[b"size"] = 0, b"%d" % size
    if not 0 <= mtime <= _MAX_OCTAL_12:
        mtime, records[b"mtime"] = 0, b"%d" % mtime
    for key, value in entry.xattrs:
        records[XATTR_RECORD + _encode_keyword(key)] = value
    block = _block(
        name=name,
        numbers=(entry.mode, uid, gid, size, mtime),
        flag=entry.type.value.encode(),
        link=link,
        device=(entry.devmajor, entry.devminor),
        prefix=prefix,
    )
    return _pax(entry, records) + block if records else block


def _names(entry: Entry) -> tuple[bytes, bytes]:
    """The path and link name as tar spells them, checked."""
    path, link = entry.path, entry.linkname
    if len(path) >= PATH_MAX or len(link) >= PATH_MAX or b"\0" in path or b"\0" in link:
        raise LaminaError(
            f"a layer cannot hold {shown(path[:200])}: its name or link target contains NUL or "
            f"is longer than {PATH_MAX - 1} bytes",
            kind=Kind.INVALID,
        )
    if max(entry.devmajor, entry.devminor) > _MAX_OCTAL_8:
        raise LaminaError(f"device number of {shown(path)} is too large", kind=Kind.INVALID)
    if entry.type is EntryType.DIR:
        path = path + b"/" if path else b"./"
    return path, link


def _split_name(path: bytes) -> tuple[bytes, bytes]:
    """The ustar name (100 bytes) and prefix (155) for an ASCII path; empty if it does not fit."""
    if len(path) <= 256 and path.isascii():
        cut = path.find(b"/", max(len(path) - 101, 1))
        if 0 < cut <= 155 and 0 < len(path) - cut - 1 <= 100:
            return path[cut + 1 :], path[:cut]
    return b"", b""


def _block(
    *,
    name: bytes,
    numbers: tuple[int, int, int, int, int],
    flag: bytes,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
) -> bytes:
    front = name.ljust(100, b"\0") + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % numbers
    back, checksum = _back(flag=flag, link=link, device=device, prefix=prefix)
    return b"%b%06o\0 %b" % (front, sum(front) + checksum, back)


def _back(
    *, flag: bytes, link: bytes = b"", device: tuple[int, int] = (0, 0), prefix: bytes = b""
) -> tuple[bytes, int]:
    """The block from the type flag on, and its part of the checksum."""
    back = b"".join(
        (
            flag,
            link.ljust(100, b"\0"),
            b"ustar\00000",
            bytes(64),  # no user and group names: they are this machine's
            b"%07o\0%07o\0" % device,
            prefix.ljust(155, b"\0"),
            bytes(12),
        )
    )
    return back, sum(back) + 8 * 0x20  # the checksum's own field counts as spaces


_PLAIN_BACKS = {t: _back(flag=t.value.encode()) for t in (EntryType.FILE, EntryType.DIR)}


def _pax(entry: Entry, records: dict[bytes, bytes]) -> bytes:
    """A pax extended header (POSIX pax §Extended Header), records sorted by keyword."""
    # Names are raw bytes, whatever their encoding, as Go's archive/tar writes them. POSIX would put
    # hdrcharset=BINARY in front; GNU tar warns about that keyword, and everyone reads the bytes.
    body = b"".join([_record(key, records[key]) for key in sorted(records)])
    if len(body) > MAX_PAX:
        raise LaminaError(
            f"extended attributes of {shown(entry.path)} are larger than {MAX_PAX} bytes together",
            kind=Kind.INVALID,
        )
    block = _block(name=_PAX_NAME, numbers=(0o644, 0, 0, len(body), 0), flag=b"x")
    return block + body + bytes(-len(body) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH key=value` and a line feed, where LENGTH counts itself."""
    length = len(key) + len(value) + 3
    total = length + len(str(length))
    if len(str(total)) != len(str(length)):
        total += 1
    return b"%d %b=%b\n" % (total, key, value)


def _encode_keyword(name: bytes) -> bytes:
    """An xattr name as part of a pax keyword: GNU tar's escapes, since `=` ends a keyword."""
    return name.replace(b"%", b"%25").replace(b"=", b"%3D")


def decode_keyword(keyword: bytes) -> bytes:
    """The inverse of the escapes above."""
    return keyword.replace(b"%3D", b"=").replace(b"%25", b"%")
