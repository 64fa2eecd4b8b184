# SPDX-License-Identifier: Apache-2.0
"""Digests of files remembered by their status, so that an unchanged file is not read again.

An entry counts only if size, mtime, ctime, inode, device and mode are what they were: a same-size
edit with a restored mtime still has another ctime. A file changed within `RACY_NS` before it was
read is not remembered at all: its next change could fall into the same tick of the filesystem's
clock (git calls such entries racy). A cache that cannot be read is an empty one.

Entries lie together by directory, in the form in which a walk finds them: an unchanged directory is
one comparison of bytes, and the digest of all that it holds is remembered beside them.
"""

from __future__ import annotations

import struct
from itertools import starmap

from lamina.start.hashing import sha256_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

RACY_NS = 2_000_000_000  # the coarsest timestamps in use: FAT's, and some network filesystems'
_MAGIC = b"lamina stat 2\n"
_STAMP = struct.Struct("<Q2q3Q")  # times before 1970 are negative
_HEAD = struct.Struct(
    "<H2I32s"
)  # lengths of path and names, number of entries, sum of the directory
_DIGEST = 32
_UNKNOWN = bytes(_DIGEST)  # no digest: racy, or not a file
_NEVER = bytes(_STAMP.size)  # the stamp of what is not remembered: no file has the mode 0
_CHECKSUM = 32  # bytes of SHA-256 of what follows: a flipped bit must not become a digest
_SPARE = 1000  # directories of other Dockerfiles' selections that may stay


def _fields(s: os.stat_result) -> tuple[int, ...]:
    return s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev, s.st_mode


def stamp(status: os.stat_result) -> bytes:
    """What must be equal for the digest to be believed."""
    return _STAMP.pack(*_fields(status))


def is_same(status: os.stat_result, other: os.stat_result) -> bool:
    """Whether the stamps are equal."""
    return _fields(status) == _fields(other)


def stamps(statuses: Iterable[os.stat_result]) -> bytes:
    """The stamps of several files, one after the other."""
    return b"".join(starmap(_STAMP.pack, map(_fields, statuses)))


class Listed:
    """What is remembered of a directory: names (with NULs between them), their stamps and digests.

    `sum` is the digest of a selection of exactly these names, empty if it is not known.
    """

    __slots__ = ("_places", "digests", "names", "stamps", "sum")

    def __init__(self, names: bytes, stamps: bytes, digests: bytes, sum: bytes) -> None:
        self.names = names
        self.stamps = stamps
        self.digests = digests
        self.sum = sum
        self._places: dict[bytes, int] | None = None

    def get(self, name: bytes) -> tuple[bytes, bytes] | None:
        """The stamp and the digest of an entry."""
        if self._places is None:
            names = self.names.split(b"\0") if self.stamps else []
            self._places = {name: number for number, name in enumerate(names)}
        number = self._places.get(name)
        if number is None:
            return None
        size = _STAMP.size
        stamp = self.stamps[number * size : (number + 1) * size]
        return stamp, self.digests[number * _DIGEST : (number + 1) * _DIGEST]

    def entries(self) -> dict[bytes, tuple[bytes, bytes]]:
        """All stamps and digests by name."""
        names = self.names.split(b"\0") if self.stamps else []
        found = {}
        for name in names:
            entry = self.get(name)
            assert entry is not None
            found[name] = entry
        return found


class StatCache:
    """`load` gives the stored blob (or None) and is called at the first question only. `now_ns`
    is the host's clock before the first file was read. `variant` says in one byte what the sums of
    directories depend on besides: sums of another variant are not believed.
    """

    def __init__(
        self, load: Callable[[], bytes | None], *, now_ns: int, variant: bytes = b"-"
    ) -> None:
        self._trusted_before = now_ns - RACY_NS
        self._load: Callable[[], bytes | None] | None = load
        self._variant = variant
        self._known: dict[bytes, Listed] = {}
        self._seen: set[bytes] = set()
        self._whole: dict[bytes, Listed] = {}
        self._single: dict[bytes, dict[bytes, tuple[bytes, bytes]]] = {}
        self._is_dirty = False

    def directory(self, path: bytes) -> Listed | None:
        """What is remembered of the directory."""
        if self._load is not None:
            blob, self._load = self._load(), None
            self._known = _parse(blob, self._variant) if blob else {}
        self._seen.add(path)
        return self._whole.get(path) or self._known.get(path)

    def get(self, path: bytes, status: os.stat_result) -> bytes | None:
        """The digest of the file at `path`, if its status is the remembered one."""
        parent, _, name = path.rpartition(b"/")
        listed = self.directory(parent)
        found = listed.get(name) if listed is not None else None
        if parent in self._single:
            found = self._single[parent].get(name, found)
        if found is None or found[0] != stamp(status) or found[1] == _UNKNOWN:
            return None
        return found[1]

    def put(self, path: bytes, status: os.stat_result, digest: bytes) -> None:
        """Remember the digest (32 bytes) of a file, unless it was changed a moment ago."""
        if not self._is_racy(status):
            parent, _, name = path.rpartition(b"/")
            self._single.setdefault(parent, {})[name] = (stamp(status), digest)
            self._is_dirty = True

    def put_directory(
        self,
        path: bytes,
        names: bytes,
        entries: Sequence[tuple[os.stat_result, bytes]],
        sum: bytes,
    ) -> None:
        """Remember all that a selection takes of a directory: the statuses and digests (empty if
        it is not a file) of the names (see `Listed`) in their order, and the sum.

        What was changed a moment ago is not remembered, and then the sum is not either.
        """
        marks, digests = [], []
        for status, digest in entries:
            if self._is_racy(status):
                marks.append(_NEVER)
                sum = b""
            else:
                marks.append(stamp(status))
            digests.append(digest or _UNKNOWN)
        made = Listed(names, b"".join(marks), b"".join(digests), sum)
        self._whole[path] = made
        self._single.pop(path, None)
        before = self._known.get(path)
        is_known = before is not None and (before.names, before.stamps, before.sum) == (
            made.names,
            made.stamps,
            made.sum,
        )
        self._is_dirty = self._is_dirty or not is_known

    def _is_racy(self, status: os.stat_result) -> bool:
        return max(status.st_mtime_ns, status.st_ctime_ns) >= self._trusted_before

    def blob(self) -> bytes | None:
        """The cache to store, None if nothing was learned."""
        if not self._is_dirty:
            return None
        known = self._known
        learned = self._whole.keys() | self._single.keys() | (self._seen & known.keys())
        if len(known) > 2 * len(learned) + _SPARE:
            known = {path: known[path] for path in learned if path in known}
        entries = {**known, **self._whole}
        for path, added in self._single.items():
            entries[path] = _with(entries.get(path), added)
        parts: list[bytes] = []
        for path, listed in sorted(entries.items()):
            if len(path) < 1 << 16 and len(listed.names) < 1 << 32:
                count = len(listed.stamps) // _STAMP.size
                sum_ = listed.sum or _UNKNOWN
                parts += (_HEAD.pack(len(path), len(listed.names), count, sum_), path)
                parts += (listed.names, listed.stamps, listed.digests)
        self._is_dirty = False
        body = self._variant + b"".join(parts)
        return b"".join((_MAGIC, sha256_of(body).digest(), body))


def _with(listed: Listed | None, added: dict[bytes, tuple[bytes, bytes]]) -> Listed:
    """The directory with some entries, whose sum is then not known."""
    entries = {**(listed.entries() if listed is not None else {}), **added}
    marks = b"".join([mark for mark, _ in entries.values()])
    return Listed(
        b"\0".join(entries), marks, b"".join([digest for _, digest in entries.values()]), b""
    )


def _parse(blob: bytes, variant: bytes) -> dict[bytes, Listed]:
    at, end = len(_MAGIC) + _CHECKSUM, len(blob)
    if (
        not blob.startswith(_MAGIC)
        or sha256_of(memoryview(blob)[at:]).digest() != blob[at - _CHECKSUM : at]
    ):
        return {}
    has_sums = blob[at : at + 1] == variant
    at += 1
    found = {}
    while at + _HEAD.size <= end:
        path_length, names_length, count, sum_ = _HEAD.unpack_from(blob, at)
        at += _HEAD.size
        path = blob[at : at + path_length]
        at += path_length
        names = blob[at : at + names_length]
        at += names_length
        stamps = blob[at : at + count * _STAMP.size]
        at += count * _STAMP.size
        digests = blob[at : at + count * _DIGEST]
        at += count * _DIGEST
        found[path] = Listed(names, stamps, digests, b"" if sum_ == _UNKNOWN else sum_)
        if not has_sums:
            found[path].sum = b""
    return found if at == end else {}
