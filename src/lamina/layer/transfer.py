# SPDX-License-Identifier: Apache-2.0
"""Files sent as a tar from one place, and put where `docker cp` puts them in another.

Both sides see a root directory: the host's, or a container's after chroot(2).
"""

from __future__ import annotations

import os

from lamina.errors import Kind, LaminaError
from lamina.layer.entry import EntryType, join
from lamina.layer.place import Policy, Tree
from lamina.layer.tarread import read_tar
from lamina.layer.tarwrite import write_tar
from lamina.layer.walk import item_at, tree_items
from lamina.start.record import Record, replace
from lamina.system.paths import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import IO

    from lamina.layer.entry import Entry, Item


class Source(Record):
    """What is sent: an absolute path. `contents` of the directory without its name (`DIR/.`);
    `follow` the link that the path names; `directory`: it must be one (`DIR/`).
    """

    path: bytes
    contents: bool = False
    follow: bool = False
    directory: bool = False


class Target(Record):
    """Where it goes: an absolute path. `contents` as of the source.

    `owner` is given to all (None: what is sent), `owners` whether any is set. `is_archive`: every
    member goes beneath the directory under its own name. `bounded`: links that are there already
    lead inside the directory only (for the host), not anywhere beneath the root.
    """

    path: bytes
    contents: bool = False
    directory: bool = False
    is_archive: bool = False
    owner: tuple[int, int] | None = None
    owners: bool = True
    privileged: bool = True
    bounded: bool = False


def parse_source(text: str, *, follow: bool = False) -> Source:
    """The source of an absolute path as Docker reads it: `/.` and `/` at the end mean something."""
    path = os.fsencode(text)
    contents = path.endswith(b"/.") or not path.strip(b"/")
    is_directory = contents or path.endswith(b"/")
    return Source(os.path.normpath(path), contents, follow or is_directory, is_directory)


def send(source: Source, write: Callable[[bytes], object]) -> None:
    """Write a tar of the source: the file or directory under its name, or what it contains.

    Raises LaminaError: NOT_FOUND, INVALID (no directory), what reading raised.
    """
    write_tar(_items(source), write)


def _items(source: Source) -> Iterator[Item]:
    path = os.path.realpath(source.path) if source.follow else _parent_resolved(source.path)
    name = os.path.basename(source.path)
    if not os.path.lexists(path):
        raise LaminaError(f"no such file or directory: {shown(source.path)}", kind=Kind.NOT_FOUND)
    if os.path.isdir(path) and not os.path.islink(path):
        prefix = b"" if source.contents else name
        for entry, content in tree_items(os.fsdecode(path), include_root=bool(prefix)):
            yield _moved(entry, prefix), content
        return
    if source.directory:
        raise LaminaError(f"not a directory: {shown(source.path)}", kind=Kind.INVALID)
    found = item_at(os.path.dirname(path), os.path.basename(path))
    if found is None:
        raise LaminaError(f"a socket cannot be copied: {shown(source.path)}", kind=Kind.INVALID)
    yield replace(found[0], path=name), found[1]


def _parent_resolved(path: bytes) -> bytes:
    parent, name = os.path.split(path)
    return os.path.join(os.path.realpath(parent), name)


def _moved(entry: Entry, prefix: bytes) -> Entry:
    if not prefix:
        return entry
    path = join(prefix, entry.path) if entry.path else prefix
    if entry.type is not EntryType.HARDLINK:
        return replace(entry, path=path)
    return replace(entry, path=path, linkname=join(prefix, entry.linkname))


def receive(stream: IO[bytes], target: Target) -> None:
    """Put what is in the tar where it belongs: into a directory that exists, else under the name.

    Raises LaminaError: NOT_FOUND (no such directory), INVALID, what writing raised.
    """
    members = iter(read_tar(stream))
    first = next(members, None)
    directory, prefix, strip = _destination(target, None if first is None else first[0])
    root = os.fsdecode(directory) if target.bounded else "/"
    if not target.bounded:
        prefix = join(directory.strip(b"/"), prefix) if prefix else directory.strip(b"/")
    policy = Policy(
        overlay=False, privileged=target.privileged, owners=target.owners, setid=target.owners
    )
    with Tree(root, policy=policy) as tree:
        if first is not None:
            for entry, content in _all(first, members):
                renamed = _renamed(entry, prefix, strip=strip)
                if renamed.path:
                    if target.owner is not None:
                        uid, gid = target.owner
                        renamed = replace(renamed, uid=uid, gid=gid)
                    tree.place(renamed, content)
        tree.finish()


def _all(first: object, rest: Iterable[object]) -> Iterator[Item]:
    yield first  # type: ignore[misc]
    yield from rest  # type: ignore[misc]


def _renamed(entry: Entry, prefix: bytes, *, strip: bool) -> Entry:
    """The entry beneath `prefix`, without its first component if that is what `prefix` names."""
    if strip:
        entry = replace(entry, path=entry.path.partition(b"/")[2])
        if entry.type is EntryType.HARDLINK:
            entry = replace(entry, linkname=entry.linkname.partition(b"/")[2])
    elif not entry.path:
        return entry  # an archive's own entry for its top: the directory stays as it is
    return _moved(entry, prefix)


def _destination(target: Target, first: Entry | None) -> tuple[bytes, bytes, bool]:
    """(directory that exists, name of the copy in it or empty, whether that is a new name)."""
    path, where = target.path, shown(target.path)
    is_directory = target.contents or (first is not None and first.type is EntryType.DIR)
    if os.path.isdir(path):
        return os.path.realpath(path), b"", False
    if target.is_archive:
        raise LaminaError(f"no such directory: {where}", kind=Kind.NOT_FOUND)
    real = os.path.realpath(path)
    directory, name = os.path.split(real)
    if os.path.lexists(real):
        if is_directory:
            raise LaminaError(f"cannot copy a directory onto the file {where}", kind=Kind.INVALID)
        if target.directory:
            raise LaminaError(f"not a directory: {where}", kind=Kind.INVALID)
    elif target.directory and not is_directory:
        raise LaminaError(f"no such directory: {where}", kind=Kind.NOT_FOUND)
    if not os.path.isdir(directory):
        raise LaminaError(f"no such directory: {shown(directory)}", kind=Kind.NOT_FOUND)
    return directory, name, not target.contents
