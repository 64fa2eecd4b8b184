# SPDX-License-Identifier: Apache-2.0
"""One member of a layer, whatever it is read from or written to."""

from __future__ import annotations

from enum import Enum

from lamina.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class EntryType(Enum):
    """What an entry is; the values are the ustar type flags."""

    FILE = "0"
    HARDLINK = "1"
    SYMLINK = "2"
    CHAR = "3"
    BLOCK = "4"
    DIR = "5"
    FIFO = "6"


@record
class Entry:
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
    # Where an entry's bytes are: given whole, or a function that opens an O_RDONLY|O_CLOEXEC file
    # descriptor which the writer closes; None for an entry without content.
    Content = bytes | Callable[[], int] | None
    Item = tuple[Entry, Content]
    Items = Iterable[Item]

WHITEOUT_PREFIX = b".wh."
OPAQUE_WHITEOUT = b".wh..wh..opq"


def sort_key(path: bytes) -> list[bytes]:
    """The order of entries in a layer: by path components, a directory before what it holds."""
    return path.split(b"/")
