# SPDX-License-Identifier: Apache-2.0
"""ADD of a local tar archive: its members are merged into the destination directory.

An archive is known by its content: after decompression (gzip, bzip2, xz, zstd) it begins with a tar
header. Anything else is copied as the file it is. Members overwrite what is there; a directory
keeps what a directory held, as `tar -x` does. Links in the way are followed, but never out of the
destination (BuildKit's `unpack_root.go`): the archive is not trusted.
"""

from __future__ import annotations

import os

from lamina.builder.changes import Lazy
from lamina.builder.tree import shown
from lamina.errors import Kind, LaminaError
from lamina.layer.compress import decompressed
from lamina.layer.entry import Entry, EntryType, resolve
from lamina.layer.slice import Slice
from lamina.layer.tarread import begins_tar, read_tar
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Protocol

    from lamina.builder.changes import Changes, Owner
    from lamina.layer.entry import Item
    from lamina.tasks import CancelToken

    class Stream(Protocol):
        """What is read of an archive."""

        def read(self, size: int = -1, /) -> bytes: ...


_CHUNK = 1 << 20
_BLOCK = 512  # bytes of a tar header


class Spool(Record):
    """A file without a name for content that can be read only once. `close` frees it."""

    fd: int

    def close(self) -> None:
        """Free the bytes. Called once."""
        os.close(self.fd)


def new_spool(path: str) -> Spool:
    """A spool, made at `path` and unlinked at once: nothing is left if this process is killed."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return Spool(fd)


class _SpooledContent(Lazy):
    """`size` bytes of a spool from `offset`."""

    def __init__(self, spool: Spool, offset: int, size: int) -> None:
        self._spool = spool
        self._offset = offset
        self._size = size

    def head(self, size: int) -> bytes:
        return os.pread(self._spool.fd, min(size, self._size), self._offset)

    def items(self, entry: Entry) -> Iterator[Item]:
        yield entry, Slice(self._spool.fd, self._offset, self._size)


def is_archive(stream: Stream) -> bool:
    """Whether the stream is a tar archive, compressed or not: it begins with a tar header.

    What is wrong behind that is an error of `unpack`: a damaged archive is no file of another kind.

    Raises:
        LaminaError: kind UNSUPPORTED: this installation cannot decompress it.
    """
    try:
        return begins_tar(decompressed(_file(stream)).read(_BLOCK))
    except LaminaError as error:
        if error.kind is not Kind.INTEGRITY:
            raise
        return False


def unpack(
    changes: Changes,
    stream: Stream,
    *,
    dest: bytes,
    owner: Owner | None,
    spool: Spool,
    mtime_ns: int,
    cancel: CancelToken,
) -> None:
    """Merge the archive into the directory `dest`; `owner` (--chown) overrides the members'.

    Raises:
        LaminaError: kind INVALID or INTEGRITY for a damaged or hostile archive.
    """
    target = changes.resolve(dest)
    changes.make_directories(target, owner=owner or (0, 0), mtime_ns=mtime_ns)
    put = _Unpacking(changes, target, owner)
    offset = 0
    for entry, reader in read_tar(decompressed(_file(stream))):
        cancel.check()
        content = None
        if entry.type is EntryType.FILE:
            content = _SpooledContent(spool, offset, entry.size)
            while chunk := reader.read(_CHUNK):
                offset += _write_all(spool.fd, chunk)
        put.member(entry, content)


class _Unpacking:
    def __init__(self, changes: Changes, root: bytes, owner: Owner | None) -> None:
        self._changes = changes
        self._root = root
        self._owner = owner

    def member(self, entry: Entry, content: Lazy | None) -> None:
        """Put one member; the archive's own root directory is left alone."""
        if not entry.path:
            return
        if entry.type is EntryType.DIR:
            place = self._inside(entry.path)
        else:
            parent, _, name = entry.path.rpartition(b"/")
            place = _join(self._inside(parent), name)
        if not place or place == self._root:
            return
        above = place.rpartition(b"/")[0]
        self._changes.make_directories(above, owner=(0, 0), mtime_ns=entry.mtime_ns)
        if entry.type is EntryType.HARDLINK:
            self._link(entry, place)
            return
        if self._owner is not None:
            entry = replace(entry, uid=self._owner[0], gid=self._owner[1])
        inode = (id(self), place) if content is not None else None
        self._changes.put(replace(entry, path=place), content, inode=inode)

    def _link(self, entry: Entry, place: bytes) -> None:
        """A hard link to a member or to a file that the destination already had."""
        parent, _, name = entry.linkname.rpartition(b"/")
        first = _join(self._inside(parent), name)
        if not self._changes.link(first, place):
            raise LaminaError(
                f"the archive links {shown(entry.path)!r} to {shown(entry.linkname)!r}, "
                "which is not a file",
                kind=Kind.INVALID,
            )

    def _inside(self, path: bytes) -> bytes:
        """Where a member's path leads, with the destination as the root."""
        inner = resolve(path, lambda at: self._readlink(_join(self._root, at)))
        return _join(self._root, inner)

    def _readlink(self, place: bytes) -> bytes | None:
        found = self._changes.lookup(place)
        return found.linkname if found is not None and found.type is EntryType.SYMLINK else None


def _file(stream: Stream) -> IO[bytes]:
    """The layer room reads nothing but `read` of its streams, and says IO."""
    return stream  # type: ignore[return-value]  # see above


def _write_all(fd: int, data: bytes) -> int:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except OSError as error:
            text = f"cannot spool the archive: {error.strerror}"
            raise LaminaError(text, kind=Kind.EXHAUSTED, hint="free some space") from error
    return len(data)


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path and name else path or name
