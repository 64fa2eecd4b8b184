# SPDX-License-Identifier: Apache-2.0
"""What a COPY selects from a tree, and the digest of it.

The digest covers paths, types, permission bits, link targets, device numbers, bytes and those
extended attributes that are copied. It does not cover mtimes, how many hard links a file has, or
the order of directories; owners only where the tree's owners are kept (COPY --from). The mode of
a directory whose contents are copied is not copied, so it does not count either.
"""

from __future__ import annotations

import os
import stat

from lamina.builder.statcache import stamp
from lamina.builder.tree import changed, entry_type, shown
from lamina.errors import Kind, LaminaError
from lamina.hashing import sha256, sha256_of
from lamina.layer.entry import EntryType
from lamina.record import Record, replace
from lamina.spec.digest import Digest
from lamina.system.xattrs import CAPABILITY, is_overlay_private, read_xattrs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from hashlib import _Hash

    from lamina.builder.changes import Lazy
    from lamina.builder.filtering import Filter
    from lamina.builder.statcache import StatCache
    from lamina.builder.tree import Tree
    from lamina.tasks import CancelToken

_CHUNK = 1 << 20
_TRIES = 3  # a file that changes while it is read is read again, then given up
_VERSION = b"lamina selection 1\n"
_SHOWN = 16  # hexadecimal digits of a file's digest in a listing
MAX_LISTING = 10_000  # lines of a listing


class Picked(Record):
    """One file of a selection. `path` is relative to the match (`b""`: the match itself), `place`
    to the tree's root. `digest` (32 bytes) covers a FILE's bytes and attributes; `status` is
    what it was when they were read. `inode` is set if the file has several hard links. `is_parent`
    is a directory that is only there for what is below it (--parents). `given` is content that is
    in no tree (a download, a heredoc).
    """

    path: bytes
    place: bytes
    type: EntryType
    status: os.stat_result
    link: bytes = b""
    digest: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    inode: tuple[int, int] | None = None
    is_parent: bool = False
    given: Lazy | None = None


class Match(Record):
    """A source that a pattern names: `path` as matched (its last part is the name it gets)."""

    path: bytes
    is_dir: bool
    picked: tuple[Picked, ...]


class Selection(Record):
    """The matches of a copy action's patterns, in the order in which they are copied."""

    digest: Digest
    matches: tuple[Match, ...]


def select(
    tree: Tree,
    patterns: Sequence[str],
    *,
    cache: StatCache | None,
    cancel: CancelToken | None = None,
    exclude: Sequence[str] = (),
    parents: bool = False,
) -> Selection:
    """The selection of `patterns` in `tree`; `cancel` is looked at before each file is read.

    `exclude` and `parents` are as in `CopyAction`.

    Raises:
        LaminaError: kind NOT_FOUND for a missing source (a wildcard may match nothing, as in
            BuildKit), DENIED for one that cannot be read, CONFLICT for one that keeps changing.
    """
    picker = _Picker(tree, cache, cancel)
    matches: list[Match] = []
    for pattern in patterns:
        if parents:
            matches += _with_parents(tree, picker, pattern, exclude)
            continue
        wanted = _excluding(exclude)
        for path in expand(tree, pattern):
            matches += picker.pick(path, wanted)
    sha = sha256(_VERSION)
    for match in matches:
        sha.update(_framed(match.path, b"match"))
        sha.update(b"".join([_line(p, tree) for p in match.picked]))
    return Selection(Digest("sha256", sha.hexdigest()), tuple(matches))


def _excluding(patterns: Sequence[str]) -> Filter | None:
    if not patterns:
        return None
    from lamina.builder.filtering import Filter

    return Filter(exclude=patterns)


def _with_parents(
    tree: Tree, picker: _Picker, pattern: str, exclude: Sequence[str]
) -> Iterator[Match]:
    """COPY --parents: what the part after the pivot selects below the directories before it."""
    from lamina.builder.filtering import Filter
    from lamina.dockerfile.ignore import has_wildcards

    left, _, right = pattern.partition("/./")
    wanted = None if right == "." else right
    is_plain = not has_wildcards(left) and not has_wildcards(right)
    for path in expand(tree, left):
        if (
            wanted is not None
            and is_plain
            and tree.status(_join(tree.resolve(path), _named(right))) is None
        ):
            raise LaminaError(
                f'"/{shown(_join(path, _named(right)))}": not found', kind=Kind.NOT_FOUND
            )
        yield from picker.pick(path, Filter(include=wanted, exclude=exclude))


def _named(pattern: str) -> bytes:
    """The path that a pattern without wildcards names: its escapes taken away."""
    chars = iter(pattern)
    return os.fsencode("".join([next(chars, "") if c == "\\" else c for c in chars]))


def select_path(
    tree: Tree, path: str, *, cache: StatCache | None, cancel: CancelToken | None = None
) -> Selection:
    """What a mount of `path` shows: one match, wildcards meaning nothing. A directory's own mode
    (and owner, where owners are kept) counts too.

    Raises:
        LaminaError: as `select`.
    """
    (match,) = _Picker(tree, cache, cancel).pick(os.fsencode(path))
    sha = sha256(_VERSION)
    if match.is_dir:
        status = tree.status(tree.resolve(match.path))
        if status is not None:
            owner = (status.st_uid, status.st_gid) if tree.keeps_owner else ()
            sha.update(b"mounted %o " % tree.mode(status) + repr(owner).encode())
    sha.update(b"".join([_line(p, tree) for p in match.picked]))
    return Selection(Digest("sha256", sha.hexdigest()), (match,))


def listing(selection: Selection, tree: Tree) -> dict[str, str]:
    """The selection for people, by path: `type mode owner digest-or-target`, `-` for what does not
    count. What an explanation of a cache miss compares (`solver.explain.file_causes`).

    More than `MAX_LISTING` files are summed up by directory, as deep as that many lines allow.
    """
    rows: dict[str, str] = {}
    for match in selection.matches:
        for picked in match.picked:
            rows[shown(_join(match.path, picked.path)) or "."] = _row(picked, tree)
    return rows if len(rows) <= MAX_LISTING else _summed_up(rows)


def _row(picked: Picked, tree: Tree) -> str:
    status, kind = picked.status, picked.type
    mode = "-" if kind is EntryType.SYMLINK else f"{tree.mode(status):04o}"
    owner = f"{status.st_uid}:{status.st_gid}" if tree.keeps_owner else "-"
    content = "-"
    if kind is EntryType.FILE:
        content = picked.digest.hex()[:_SHOWN]
    elif kind is EntryType.SYMLINK:
        content = shown(picked.link)
    elif picked.xattrs:
        content = "attributes " + sha256(repr(picked.xattrs).encode()).hexdigest()[:_SHOWN]
    elif kind in {EntryType.CHAR, EntryType.BLOCK}:
        content = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return f"{kind.name.lower()} {mode} {owner} {content}"


def _summed_up(rows: dict[str, str]) -> dict[str, str]:
    for depth in range(40, 0, -1):
        sums: dict[str, _Hash] = {}
        for path, row in rows.items():
            place = "/".join(path.split("/")[:-1][:depth]) + "/"
            sums.setdefault(place, sha256()).update(f"{path}\0{row}\n".encode())
            if len(sums) > MAX_LISTING:
                break
        else:
            return {
                place: f"dir - - {digest.hexdigest()[:_SHOWN]}" for place, digest in sums.items()
            }
    return {}


# Patterns -----------------------------------------------------------------------------------


def expand(tree: Tree, pattern: str) -> list[bytes]:
    """The paths that a pattern names, in walking order; a plain path stands for itself.

    The part before the first wildcard is followed through links; wildcards match within one
    component and do not follow.
    """
    from lamina.dockerfile.ignore import has_wildcards

    parts = _clean(pattern)
    plain = 0
    while plain < len(parts) and not has_wildcards(parts[plain]):
        plain += 1
    start = os.fsencode("/".join(parts[:plain]))
    if plain == len(parts):
        return [start]
    base = tree.resolve(start)
    return list(_glob(tree, base, parts[plain:]))


def _glob(tree: Tree, base: bytes, parts: Sequence[str]) -> Iterator[bytes]:
    from lamina.dockerfile.ignore import match_path

    found = tree.status(base)
    if found is None or not stat.S_ISDIR(found.st_mode):
        return
    for name in tree.names(base):
        if match_path(parts[0], os.fsdecode(name)):
            path = _join(base, name)
            if len(parts) == 1:
                yield path
            else:
                yield from _glob(tree, path, parts[1:])


def _clean(pattern: str) -> list[str]:
    """The components of a source path: relative to the root, `..` never leaves it."""
    parts: list[str] = []
    for part in pattern.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return parts


# Files --------------------------------------------------------------------------------------


class _Picker:
    """Reads what one path names."""

    def __init__(self, tree: Tree, cache: StatCache | None, cancel: CancelToken | None) -> None:
        self._tree = tree
        self._cache = cache
        self._cancel = cancel

    def pick(self, path: bytes, wanted: Filter | None = None) -> list[Match]:
        """The match of a path, without what the filter leaves out; none if that is the path."""
        tree = self._tree
        place = tree.resolve(path)
        found = tree.status(place)
        if found is None:
            raise LaminaError(f'"/{shown(path)}": not found', kind=Kind.NOT_FOUND)
        if stat.S_ISDIR(found.st_mode):
            start = len(place) + 1 if place else 0
            if wanted is not None:
                return [Match(path, True, tuple(self._filtered(place, start, wanted)))]
            below = tuple(
                [
                    self._picked(inner[start:], inner, status, fd, name)
                    for inner, status, fd, name in tree.walk(place)
                ]
            )
            return [Match(path, True, below)]
        if wanted is not None and not wanted.takes(path.rpartition(b"/")[2]):
            return []
        parent, _, name = place.rpartition(b"/")
        fd = tree.open(parent)
        try:
            picked = self._picked(b"", place, found, fd, os.fsdecode(name))
        finally:
            os.close(fd)
        return [Match(path, False, (picked,))]

    def _filtered(self, place: bytes, start: int, wanted: Filter) -> Iterator[Picked]:
        """What the filter takes below a directory, and the directories that lead to it."""
        waiting: list[Picked] = []
        steps = self._tree.walk(place, enter=lambda inner: wanted.enters(inner[start:]))
        for inner, status, fd, name in steps:
            path = inner[start:]
            while waiting and not path.startswith(waiting[-1].path + b"/"):
                waiting.pop()
            if wanted.takes(path):
                yield from waiting
                waiting.clear()
                yield self._picked(path, inner, status, fd, name)
            elif stat.S_ISDIR(status.st_mode):
                picked = self._picked(path, inner, status, fd, name)
                waiting.append(replace(picked, is_parent=True))

    def _picked(
        self, path: bytes, place: bytes, status: os.stat_result, fd: int, name: str
    ) -> Picked:
        kind = entry_type(status.st_mode)
        if kind is EntryType.FILE:
            cache = self._cache
            digest = cache.get(place, status) if cache is not None else None
            if digest is None:
                digest, status = self._read(place, fd, name)
                if cache is not None:
                    cache.put(place, status, digest)
            inode = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
            return Picked(path, place, kind, status, digest=digest, inode=inode)
        if kind is EntryType.SYMLINK:
            return Picked(path, place, kind, status, link=self._tree.readlink(place, fd, name))
        if kind is EntryType.DIR:
            return Picked(path, place, kind, status, xattrs=self._dir_xattrs(place, fd, name))
        if kind is None:
            text = f"{shown(place)!r} of {self._tree.what} is a socket, which no image can hold"
            raise LaminaError(text, kind=Kind.UNSUPPORTED)
        return Picked(path, place, kind, status)

    def _dir_xattrs(self, place: bytes, fd: int, name: str) -> tuple[tuple[bytes, bytes], ...]:
        below = self._tree.open_at(fd, name, place)
        try:
            return copied_xattrs(below)
        finally:
            os.close(below)

    def _read(self, place: bytes, fd: int, name: str) -> tuple[bytes, os.stat_result]:
        """The digest of a file and the status that it had all the while."""
        if self._cancel is not None:
            self._cancel.check()
        file = self._tree.open_at(fd, name, place)
        try:
            for _ in range(_TRIES):
                before = os.fstat(file)
                if not stat.S_ISREG(before.st_mode):
                    break
                digest = payload_digest(_hash(file), copied_xattrs(file))
                if stamp(os.fstat(file)) == stamp(before):
                    return digest, before
                os.lseek(file, 0, os.SEEK_SET)
        finally:
            os.close(file)
        raise changed(place, self._tree.what)


def _hash(file: int) -> bytes:
    first = os.read(file, _CHUNK)
    sha = sha256_of(first)
    if len(first) == _CHUNK:
        while chunk := os.read(file, _CHUNK):
            sha.update(chunk)
    return sha.digest()


def payload_digest(content: bytes, xattrs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The digest of a file from that of its bytes and its copied attributes (usually none)."""
    if not xattrs:
        return content
    sha = sha256(content)
    for name, value in xattrs:
        sha.update(_framed(name, value))
    return sha.digest()


def copied_xattrs(fd: int) -> tuple[tuple[bytes, bytes], ...]:
    """The extended attributes that a copy keeps, sorted: file capabilities and `user.*`.

    Labels of the host's security modules and overlayfs's own bookkeeping stay behind.
    """
    found = read_xattrs(fd)
    if not found:
        return ()
    return tuple(
        (name, value)
        for name, value in found
        if name == CAPABILITY or (name.startswith(b"user.") and not is_overlay_private(name))
    )


# Digest -------------------------------------------------------------------------------------


def _line(picked: Picked, tree: Tree) -> bytes:
    """One file in the digest; every part has a fixed length or its length in front."""
    status, kind, path = picked.status, picked.type, picked.path
    mode = tree.mode(status)
    owner = b" %d %d" % (status.st_uid, status.st_gid) if tree.keeps_owner else b""
    if kind is EntryType.FILE:
        return b"file %o%b %d:%b%b" % (mode, owner, len(path), path, picked.digest)
    if kind is EntryType.SYMLINK:
        return b"link%b" % owner + _framed(path, picked.link)
    if kind is EntryType.DIR:
        names = [field for xattr in picked.xattrs for field in xattr]
        kept = b" parent" if picked.is_parent else b""
        return b"directory %o%b%b" % (mode, owner, kept) + _framed(path, *names)
    device = 0 if kind is EntryType.FIFO else status.st_rdev
    return b"node %b %o%b %d" % (kind.value.encode(), mode, owner, device) + _framed(path)


def _framed(*fields: bytes) -> bytes:
    """The fields with their lengths, so that no two lists of fields give the same bytes."""
    head = b",".join([b"%d" % len(field) for field in fields])
    return b"".join((head, b":", *fields, b"\n"))


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path and name else path or name
