# SPDX-License-Identifier: Apache-2.0
"""What a COPY selects from a tree, and the digest of it.

The digest covers paths, types, permission bits, link targets, device numbers, bytes and those
extended attributes that are copied. It does not cover mtimes, how many hard links a file has, or
the order of directories; owners only where the tree's owners are kept (COPY --from). The mode of
a directory whose contents are copied is not copied, so it does not count either.

It is a digest of digests, one (its *sum*) for each directory that holds something selected, so that
those of unchanged directories can be remembered (`statcache`) and nothing is made of their files.
"""

from __future__ import annotations

import os
import stat

from lamina.builder.statcache import is_same, stamps
from lamina.builder.tree import changed, entry_type, shown
from lamina.errors import Kind, LaminaError
from lamina.layer.entry import EntryType
from lamina.spec.digest import Digest
from lamina.start.hashing import sha256, sha256_of
from lamina.start.record import Record, replace
from lamina.system.xattrs import copied_xattrs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lamina.builder.changes import Lazy
    from lamina.builder.filtering import Filter
    from lamina.builder.statcache import StatCache
    from lamina.builder.tree import Tree
    from lamina.tasks import CancelToken

_CHUNK = 1 << 20
_TRIES = 3  # a file that changes while it is read is read again, then given up
_VERSION = b"lamina selection 2\n"  # a change of what a sum is needs another `statcache._MAGIC` too


class Picked(Record):
    """One file of a selection. `path` is relative to the match (`b""`: the match itself), `place`
    to the tree's root. `digest` (32 bytes) covers a FILE's bytes and attributes; `status` is
    what it was when they were read; `content` is that of the bytes alone, if the file has attributes
    and was read just now. `inode` is set if the file has several hard links. `is_parent`
    is a directory that is only there for what is below it (--parents). `given` is content that is
    in no tree (a download, a heredoc).
    """

    path: bytes
    place: bytes
    type: EntryType
    status: os.stat_result
    link: bytes = b""
    digest: bytes = b""
    content: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    inode: tuple[int, int] | None = None
    is_parent: bool = False
    given: Lazy | None = None


class Match(Record):
    """A source that a pattern names: `path` as matched (its last part is the name it gets)."""

    path: bytes
    is_dir: bool
    picked: tuple[Picked, ...]


class Selection:
    """What a copy action's patterns select. `load` is asked for the matches when they are needed.

    `count` files and directories; `sums` of directories by path in the tree, if they are known.
    `mounted` is the status of the directory that a mount shows, which counts too.
    """

    __slots__ = ("_load", "_matches", "count", "digest", "mounted", "sums")

    def __init__(
        self,
        digest: Digest,
        matches: tuple[Match, ...] | None = None,
        *,
        load: Callable[[], tuple[Match, ...]] | None = None,
        count: int = 0,
        sums: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        self.digest = digest
        self.count = count
        self.sums = sums
        self.mounted: os.stat_result | None = None
        self._matches = matches
        self._load = load

    @property
    def matches(self) -> tuple[Match, ...]:
        """The matches in the order in which they are copied.

        Raises:
            LaminaError: as `select`; CONFLICT if they are no longer what the digest says.
        """
        if self._matches is None:
            assert self._load is not None
            self._matches = self._load()
        return self._matches


class _Found(Record):
    """A match, and the sums of what it holds by directory (relative to it), in walking order.

    `picked` is None if all was remembered: then only the `count` of files is known.
    """

    path: bytes
    is_dir: bool
    sums: tuple[tuple[bytes, bytes], ...]
    picked: tuple[Picked, ...] | None
    count: int


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

    def find(*, remembered: bool) -> list[_Found]:
        picker = _Picker(tree, cache, cancel, remembered=remembered)
        found: list[_Found] = []
        for pattern in patterns:
            if parents:
                found += _with_parents(tree, picker, pattern, exclude)
                continue
            wanted = _excluding(exclude)
            for path in expand(tree, pattern):
                found += picker.pick(path, wanted)
        return found

    return _selection(tree, find, lambda found: _digest(found, _VERSION, has_names=True))


def _selection(
    tree: Tree,
    find: Callable[..., list[_Found]],
    digest_of: Callable[[list[_Found]], Digest],
) -> Selection:
    """The selection of what `find` finds; it is asked again if the files have to be known."""
    found = find(remembered=True)
    digest = digest_of(found)
    sums = tuple([(join(f.path, path), sum_) for f in found for path, sum_ in f.sums])
    count = sum([each.count for each in found])
    if all(each.picked is not None for each in found):
        return Selection(digest, _matches(found), count=count, sums=sums)

    def load() -> tuple[Match, ...]:
        again = find(remembered=False)
        if digest_of(again) != digest:
            raise changed(_differing(found, again), tree.what)
        return _matches(again)

    return Selection(digest, load=load, count=count, sums=sums)


def _digest(found: Sequence[_Found], head: bytes, *, has_names: bool) -> Digest:
    sha = sha256(head)
    for each in found:
        if has_names:
            sha.update(_framed(each.path, b"match"))
        sha.update(b"".join([_framed(path, sum_) for path, sum_ in each.sums]))
    return Digest("sha256", sha.hexdigest())


def _matches(found: Sequence[_Found]) -> tuple[Match, ...]:
    return tuple([Match(each.path, each.is_dir, each.picked or ()) for each in found])


def _differing(before: Sequence[_Found], after: Sequence[_Found]) -> bytes:
    """A directory that is not what it was."""
    sums = [
        {join(f.path, path): s for f in found for path, s in f.sums} for found in (before, after)
    ]
    different = [path for path in {**sums[0], **sums[1]} if sums[0].get(path) != sums[1].get(path)]
    return (different or [b""])[0] or b"."


def _excluding(patterns: Sequence[str]) -> Filter | None:
    if not patterns:
        return None
    from lamina.builder.filtering import Filter

    return Filter(exclude=patterns)


def _with_parents(
    tree: Tree, picker: _Picker, pattern: str, exclude: Sequence[str]
) -> Iterator[_Found]:
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
            and tree.status(join(tree.resolve(path), _named(right))) is None
        ):
            raise LaminaError(
                f'"/{shown(join(path, _named(right)))}": not found', kind=Kind.NOT_FOUND
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
    place = os.fsencode(path)
    status = tree.status(tree.resolve(place))
    head = _VERSION + b"mounted"
    if status is not None and stat.S_ISDIR(status.st_mode):
        owner = (status.st_uid, status.st_gid) if tree.keeps_owner else ()
        head += b" %o " % tree.mode(status) + repr(owner).encode()

    def find(*, remembered: bool) -> list[_Found]:
        return _Picker(tree, cache, cancel, remembered=remembered).pick(place)

    selection = _selection(tree, find, lambda found: _digest(found, head, has_names=False))
    if status is not None and stat.S_ISDIR(status.st_mode):
        selection.mounted = status
    return selection


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
            path = join(base, name)
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
    """Reads what one path names. What is `remembered` by directory is not looked at more closely."""

    def __init__(
        self,
        tree: Tree,
        cache: StatCache | None,
        cancel: CancelToken | None,
        *,
        remembered: bool,
    ) -> None:
        self._tree = tree
        self._cache = cache
        self._cancel = cancel
        self._uses_sums = remembered

    def pick(self, path: bytes, wanted: Filter | None = None) -> list[_Found]:
        """The match of a path, without what the filter leaves out; none if that is the path."""
        tree = self._tree
        place = tree.resolve(path)
        found = tree.status(place)
        if found is None:
            raise LaminaError(f'"/{shown(path)}": not found', kind=Kind.NOT_FOUND)
        if stat.S_ISDIR(found.st_mode):
            if wanted is None and tree.is_plain:
                return [self._whole(path, place)]
            start = len(place) + 1 if place else 0
            return [self._found(path, tuple(self._filtered(place, start, wanted)), is_dir=True)]
        if wanted is not None and not wanted.takes(path.rpartition(b"/")[2]):
            return []
        parent, _, name = place.rpartition(b"/")
        fd = tree.open(parent)
        try:
            picked = self._picked(b"", place, found, fd, os.fsdecode(name))
        finally:
            os.close(fd)
        return [self._found(path, (self._kept(picked),), is_dir=False)]

    def _found(self, path: bytes, picked: tuple[Picked, ...], *, is_dir: bool) -> _Found:
        lines: dict[bytes, list[bytes]] = {}
        for each in picked:
            parent, _, name = each.path.rpartition(b"/")
            lines.setdefault(parent, []).append(_line(each, name, self._tree))
        sums = [(parent, sha256_of(b"".join(held)).digest()) for parent, held in lines.items()]
        return _Found(path, is_dir, tuple(sums), picked, len(picked))

    def _whole(self, path: bytes, place: bytes) -> _Found:
        """A directory with all that is not ignored, by directories."""
        cache = self._cache
        start = len(place) + 1 if place else 0
        held: dict[bytes, list[Picked]] | None = {}
        if cache is not None and self._uses_sums and cache.directory(place) is not None:
            held = None
        sums: list[tuple[bytes, bytes]] = []
        count = 0
        for inner, fd, names, statuses in self._tree.directories(place):
            if not names:
                continue
            count += len(names)
            joined = os.fsencode("\0".join(names))
            listed = cache.directory(inner) if cache is not None and held is None else None
            if (
                listed is not None
                and listed.sum
                and listed.names == joined
                and listed.stamps == stamps(statuses)
            ):
                sums.append((inner[start:], listed.sum))
                continue
            picked = self._children(inner, start, fd, names, statuses)
            split = joined.split(b"\0")
            lines = [_line(p, n, self._tree) for p, n in zip(picked, split, strict=True)]
            sum_ = sha256_of(b"".join(lines)).digest()
            sums.append((inner[start:], sum_))
            if cache is not None:
                entries = [(each.status, each.digest) for each in picked]
                cache.put_directory(inner, joined, entries, sum_)
            if held is not None:
                held[inner[start:]] = picked
        picked_all = tuple(_in_order(held)) if held is not None else None
        return _Found(path, True, tuple(sums), picked_all, count)

    def _children(
        self,
        inner: bytes,
        start: int,
        fd: int,
        names: list[str],
        statuses: list[os.stat_result],
    ) -> list[Picked]:
        prefix = inner + b"/" if inner else b""
        picked = []
        for name, status in zip(names, statuses, strict=True):
            place = prefix + os.fsencode(name)
            picked.append(self._picked(place[start:], place, status, fd, name))
        return picked

    def _filtered(self, place: bytes, start: int, wanted: Filter | None) -> Iterator[Picked]:
        """What the filter takes below a directory, and the directories that lead to it."""
        if wanted is None:
            for inner, status, fd, name in self._tree.walk(place):
                yield self._kept(self._picked(inner[start:], inner, status, fd, name))
            return
        waiting: list[Picked] = []
        steps = self._tree.walk(place, enter=lambda inner: wanted.enters(inner[start:]))
        for inner, status, fd, name in steps:
            path = inner[start:]
            while waiting and not path.startswith(waiting[-1].path + b"/"):
                waiting.pop()
            if wanted.takes(path):
                yield from waiting
                waiting.clear()
                yield self._kept(self._picked(path, inner, status, fd, name))
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
            content = b""
            if digest is None:
                digest, content, status = self._read(place, fd, name)
            inode = (status.st_dev, status.st_ino) if status.st_nlink > 1 else None
            content = content if content != digest else b""
            return Picked(path, place, kind, status, digest=digest, content=content, inode=inode)
        if kind is EntryType.SYMLINK:
            return Picked(path, place, kind, status, link=self._tree.readlink(place, fd, name))
        if kind is EntryType.DIR:
            return Picked(path, place, kind, status, xattrs=self._dir_xattrs(place, fd, name))
        if kind is None:
            text = f"{shown(place)!r} of {self._tree.what} is a socket, which no image can hold"
            raise LaminaError(text, kind=Kind.UNSUPPORTED)
        return Picked(path, place, kind, status)

    def _kept(self, picked: Picked) -> Picked:
        """Remember one file by itself."""
        cache = self._cache
        if cache is not None and picked.digest:
            known = cache.get(picked.place, picked.status)
            if known is None:
                cache.put(picked.place, picked.status, picked.digest)
        return picked

    def _dir_xattrs(self, place: bytes, fd: int, name: str) -> tuple[tuple[bytes, bytes], ...]:
        below = self._tree.open_at(fd, name, place)
        try:
            return copied_xattrs(below)
        finally:
            os.close(below)

    def _read(self, place: bytes, fd: int, name: str) -> tuple[bytes, bytes, os.stat_result]:
        """The digest of a file, that of its bytes alone, and the status that it had all the while."""
        if self._cancel is not None:
            self._cancel.check()
        file = self._tree.open_at(fd, name, place)
        try:
            for _ in range(_TRIES):
                before = os.fstat(file)  # it may have become a fifo since the walk
                if not stat.S_ISREG(before.st_mode):
                    break
                content = _hash(file)
                digest = payload_digest(content, copied_xattrs(file))
                if is_same(os.fstat(file), before):
                    return digest, content, before
                os.lseek(file, 0, os.SEEK_SET)
        finally:
            os.close(file)
        raise changed(place, self._tree.what)


def _in_order(held: dict[bytes, list[Picked]]) -> Iterator[Picked]:
    """What directories hold as one walk, each directory before its contents."""
    todo = held.pop(b"", [])[::-1]
    while todo:
        picked = todo.pop()
        yield picked
        if picked.type is EntryType.DIR:
            todo += held.pop(picked.path, [])[::-1]


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


# Digest -------------------------------------------------------------------------------------


def _line(picked: Picked, name: bytes, tree: Tree) -> bytes:
    """One file in its directory's sum; every part has a fixed length or its length in front."""
    status, kind, path = picked.status, picked.type, name
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


def join(path: bytes, name: bytes) -> bytes:
    """The path of a name below a path, of which either may be empty."""
    return path + b"/" + name if path and name else path or name
