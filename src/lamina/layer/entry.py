# SPDX-License-Identifier: Apache-2.0
"""One member of a layer, whatever it is read from or written to, and how its path is read."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.enumeration import Enumeration
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol


class EntryType(Enumeration):
    """What an entry is; the values are the ustar type flags."""

    FILE = "0"
    HARDLINK = "1"
    SYMLINK = "2"
    CHAR = "3"
    BLOCK = "4"
    DIR = "5"
    FIFO = "6"


class Entry(Record):
    """A member of a changeset.

    `path` is relative, without `./`, leading or trailing slash; the root directory is `b""`.
    A whiteout is a FILE named `.wh.NAME`, an opaque directory holds `.wh..wh..opq`
    (image-spec layer.md §Whiteouts). `mode` holds the permission bits 07777 only. `size` in bytes
    (0 unless a FILE); `mtime_ns` in nanoseconds since the epoch. `linkname` is the target of a
    SYMLINK as stored, or the path (like `path`) of a HARDLINK's first name. `xattrs` are sorted by
    name, e.g. (b"security.capability", value).
    """

    path: bytes
    type: EntryType
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    linkname: bytes = b""
    devmajor: int = 0
    devminor: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


if TYPE_CHECKING:

    class Stream(Protocol):
        """Content that can be read once, in order, before the next item is asked for."""

        def read(self, size: int = -1, /) -> bytes:
            """Up to `size` bytes (all that is left if negative); empty at the end."""

    # Where an entry's bytes are: given whole; or a function that opens an O_RDONLY|O_CLOEXEC file
    # descriptor which the writer closes; or a stream (what `tarread` yields); None for an entry
    # without content.
    Content = bytes | Callable[[], int] | Stream | None
    Item = tuple[Entry, Content]
    Items = Iterable[Item]

WHITEOUT_PREFIX = b".wh."
OPAQUE_WHITEOUT = b".wh..wh..opq"
_MAX_SYMLINKS = 40  # what Linux follows in one lookup (path_resolution(7))


def split(path: bytes) -> tuple[bytes, bytes]:
    """The parent (`b""` for the root) and the last component of an entry's path."""
    parent, _, name = path.rpartition(b"/")
    return parent, name


def join(parent: bytes, name: bytes) -> bytes:
    """The path of `name` in the directory `parent`."""
    return parent + b"/" + name if parent else name


def resolve(path: bytes, readlink: Callable[[bytes], bytes | None]) -> bytes:
    """Where `path` leads from a root: no links, no `.` or `..`, which never leave the root.

    `readlink` is asked for every place on the way, from the root down, once all above it are known
    to be no links: it gives the target of the link there, None if it is no link. Components that do
    not exist are kept, so this also says where a file would be made.

    Raises:
        LaminaError: kind INVALID for a loop of links; what `readlink` raises.
    """
    at, todo = b"", path.split(b"/")[::-1]
    links = 0
    while todo:
        name = todo.pop()
        if name in {b"", b"."}:
            continue
        if name == b"..":
            at = split(at)[0]
            continue
        place = join(at, name)
        target = readlink(place)
        if target is None:
            at = place
            continue
        links += 1
        if links > _MAX_SYMLINKS:
            from lamina.system.paths import shown

            text = f"too many symbolic links in {shown(b'/' + path.lstrip(b'/'))}"
            raise LaminaError(text, kind=Kind.INVALID)
        if target.startswith(b"/"):
            at = b""
        todo += target.split(b"/")[::-1]
    return at


def sort_key(path: bytes) -> list[bytes]:
    """The order of entries in a layer: by path components, a directory before what it holds.

    A directory's whiteouts come before its other entries (image-spec layer.md §Whiteouts: they
    "SHOULD appear before sibling directory entries").
    """
    parts = path.split(b"/")
    if parts[-1].startswith(WHITEOUT_PREFIX):
        parts[-1] = b"\0" + parts[-1]  # no name contains NUL, so nothing sorts lower
    return parts
