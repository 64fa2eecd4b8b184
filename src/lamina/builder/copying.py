# SPDX-License-Identifier: Apache-2.0
"""COPY and ADD: a selection put into a layer by BuildKit's rules of destinations.

| source | destination | result |
|---|---|---|
| file | a directory, or written with a trailing slash | the directory gets it under its name |
| file | anything else | it becomes that path, replacing a file or link |
| directory | absent | made (0755), gets the directory's contents |
| directory | a directory | gets the contents; its own mode and owner stay |
| file over a directory, directory over a file | | an error |

Links in the destination's path are followed inside the image. Directories below the source keep
their own mode and overwrite that of an existing one; what has to be made above is 0755,
or the mode of an octal --chmod (BuildKit's dockerfile_copy_test.go, testCopyChmod). Files of a build
context are root's, those of a stage keep their owner; `--chown` and `--chmod` override.
"""

from __future__ import annotations

import os

from lamina.builder.changes import Lazy, entry_of
from lamina.builder.selection import payload_digest
from lamina.builder.statcache import is_same
from lamina.builder.tree import changed, shown
from lamina.errors import Kind, LaminaError
from lamina.layer.entry import Entry, EntryType
from lamina.start.hashing import Sha256, sha256_of
from lamina.start.record import replace
from lamina.system.xattrs import copied_xattrs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from lamina.builder.changes import Changes, Owner
    from lamina.builder.selection import Match, Picked
    from lamina.builder.tree import Tree
    from lamina.dockerfile.filemode import FileMode
    from lamina.layer.entry import Item

_CHUNK = 1 << 20


class FileContent(Lazy):
    """A file of a tree. One of a build context is hashed while it is written: the layer must hold
    the bytes whose digest is in the cache key.
    """

    def __init__(self, tree: Tree, picked: Picked) -> None:
        self._tree = tree
        self._picked = picked

    def head(self, size: int) -> bytes:
        fd = self._tree.open(self._picked.place)
        try:
            data = b""
            while len(data) < size and (chunk := os.read(fd, size - len(data))):
                data += chunk
            return data
        finally:
            os.close(fd)

    def items(self, entry: Entry) -> Iterator[Item]:
        picked = self._picked
        fd = self._tree.open(picked.place)
        try:
            if not is_same(os.fstat(fd), picked.status):
                raise changed(picked.place, self._tree.what)
            if entry.size < _CHUNK:
                data = os.read(fd, entry.size + 1)
                # equal: it had no attributes then, and as its ctime is the same it has none now
                if sha256_of(data).digest() == picked.digest:
                    yield entry, data
                    return
                os.lseek(fd, 0, os.SEEK_SET)
            xattrs = copied_xattrs(fd)
            reader = _HashingReader(fd)
            yield (replace(entry, xattrs=xattrs) if xattrs else entry), reader
            if self._tree.keeps_owner:
                return  # a snapshot does not change
            if payload_digest(reader.digest(), xattrs) != picked.digest:
                raise changed(picked.place, self._tree.what)
        finally:
            os.close(fd)


class _HashingReader:
    """Content of a tar member that remembers the digest of what was read."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._sha = Sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = os.read(self._fd, size if size >= 0 else _CHUNK)
        self._sha.update(data)
        return data

    def digest(self) -> bytes:
        return self._sha.digest()


class VerifiedStream:
    """A picked file as a stream; `verify` reads the rest and compares the digest.

    A context manager.
    """

    def __init__(self, tree: Tree, picked: Picked) -> None:
        self._tree = tree
        self._picked = picked
        self._fd = tree.open(picked.place)
        self._reader = _HashingReader(self._fd)

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; empty at the end."""
        if size >= 0:
            return self._reader.read(size)
        return b"".join(iter(lambda: self._reader.read(_CHUNK), b""))

    def verify(self) -> None:
        """Raise LaminaError of kind CONFLICT if the file is not what was digested."""
        while self._reader.read(_CHUNK):
            pass
        if payload_digest(self._reader.digest(), copied_xattrs(self._fd)) != self._picked.digest:
            raise changed(self._picked.place, self._tree.what)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)


def copy_match(
    changes: Changes,
    tree: Tree,
    match: Match,
    *,
    dest: bytes,
    owner: Owner | None,
    mode: FileMode | None,
    inode_space: object,
) -> None:
    """Copy one matched source to `dest` (as written: a trailing slash counts).

    `owner` and `mode` are those of --chown and --chmod. Hard links are kept within a match;
    `inode_space` tells matches apart.

    Raises:
        LaminaError: kind INVALID where file and directory collide.
    """
    new_owner = owner or (0, 0)
    mtime_ns = max((picked.status.st_mtime_ns for picked in match.picked), default=0)
    parent, _, last = dest.rpartition(b"/")
    above = dest if last in {b"", b"."} else parent
    made_mode = mode.octal if mode is not None and mode.octal is not None else 0o755
    changes.make_directories(
        changes.resolve(above), owner=new_owner, mtime_ns=mtime_ns, mode=made_mode
    )
    target = changes.resolve(dest)
    found = changes.lookup(target)
    if not match.is_dir and found is not None and found.type is EntryType.DIR:
        target = _join(target, match.path.rpartition(b"/")[2])
    is_new_dir = match.is_dir and found is None
    above = target if is_new_dir else target.rpartition(b"/")[0]
    changes.make_directories(above, owner=new_owner, mtime_ns=mtime_ns)
    if match.is_dir:
        _check_directory(changes, target)
    for picked in match.picked:
        place = _join(target, picked.path)
        _put(changes, tree, picked, place, owner=owner, mode=mode, inode_space=inode_space)


def _put(
    changes: Changes,
    tree: Tree,
    picked: Picked,
    place: bytes,
    *,
    owner: Owner | None,
    mode: FileMode | None,
    inode_space: object,
) -> None:
    if picked.type is EntryType.DIR:
        _check_directory(changes, place)
    else:
        found = changes.lookup(place)
        if found is not None and found.type is EntryType.DIR:
            text = f"cannot replace to directory '/{shown(place)}' with file"
            raise LaminaError(text, kind=Kind.INVALID)
    if owner is None and not tree.keeps_owner:
        owner = (0, 0)
    bits = tree.mode(picked.status) if tree.git_modes else None
    if mode is not None:
        bits = mode.apply(tree.mode(picked.status), is_dir=picked.type is EntryType.DIR)
    entry = entry_of(
        place, picked.status, link=picked.link, owner=owner, mode=bits, xattrs=picked.xattrs
    )
    assert entry is not None
    if picked.is_parent and changes.lookup(place) is not None:
        # as fsutil: a directory that only leads to what is copied stays its old owner's
        changes.put(replace(changes.directory(place), mode=entry.mode))
        return
    content: Lazy | None = picked.given
    if content is None and picked.type is EntryType.FILE:
        content = FileContent(tree, picked)
    inode = (inode_space, picked.inode) if picked.inode is not None else None
    changes.put(entry, content, inode=inode)


def _check_directory(changes: Changes, place: bytes) -> None:
    found = changes.lookup(place)
    if found is not None and found.type is not EntryType.DIR:
        text = f"cannot copy to non-directory: '/{shown(place)}'"
        raise LaminaError(text, kind=Kind.INVALID)


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path and name else path or name
