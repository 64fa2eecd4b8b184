# SPDX-License-Identifier: Apache-2.0
"""Digests of files remembered by their status, so that an unchanged file is not read again.

An entry counts only if size, mtime, ctime, inode, device and mode are what they were: a same-size
edit with a restored mtime still has another ctime. A file changed within `RACY_NS` before it was
read is not remembered at all: its next change could fall into the same tick of the filesystem's
clock (git calls such entries racy). A cache that cannot be read is an empty one.
"""

from __future__ import annotations

import struct

from lamina.hashing import sha256_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable

RACY_NS = 2_000_000_000  # the coarsest timestamps in use: FAT's, and some network filesystems'
_MAGIC = b"lamina stat 1\n"
_STAMP = struct.Struct("<6Q")
_HEAD = struct.Struct("<H48s32s")  # length of the path, stamp, digest; then the path
_SUM = 32  # bytes of SHA-256 of what follows: a flipped bit must not become a digest
_SPARE = 1000  # entries of other Dockerfiles' selections that may stay


def stamp(status: os.stat_result) -> bytes:
    """What must be equal for the digest to be believed."""
    mask = (1 << 64) - 1  # times before 1970 are negative
    return _STAMP.pack(
        status.st_size,
        status.st_mtime_ns & mask,
        status.st_ctime_ns & mask,
        status.st_ino,
        status.st_dev,
        status.st_mode,
    )


class StatCache:
    """`load` gives the stored blob (or None) and is called at the first question only. `now_ns`
    is the host's clock before the first file was read.
    """

    def __init__(self, load: Callable[[], bytes | None], *, now_ns: int) -> None:
        self._trusted_before = now_ns - RACY_NS
        self._load: Callable[[], bytes | None] | None = load
        self._known: dict[bytes, tuple[bytes, bytes]] = {}
        self._seen: dict[bytes, tuple[bytes, bytes]] = {}
        self._is_dirty = False

    def get(self, path: bytes, status: os.stat_result) -> bytes | None:
        """The digest of the file at `path`, if its status is the remembered one."""
        if self._load is not None:
            blob, self._load = self._load(), None
            self._known = _parse(blob) if blob else {}
        found = self._known.get(path)
        if found is None or found[0] != stamp(status):
            return None
        self._seen[path] = found
        return found[1]

    def put(self, path: bytes, status: os.stat_result, digest: bytes) -> None:
        """Remember the digest (32 bytes) of a file, unless it was changed a moment ago."""
        youngest = max(status.st_mtime_ns, status.st_ctime_ns)
        if youngest < self._trusted_before and len(path) < 1 << 16:
            self._seen[path] = (stamp(status), digest)
            self._is_dirty = True

    def blob(self) -> bytes | None:
        """The cache to store, None if nothing was learned."""
        if not self._is_dirty:
            return None
        kept = self._known if len(self._known) <= 2 * len(self._seen) + _SPARE else {}
        entries = {**kept, **self._seen}
        parts: list[bytes] = []
        for path, (status, digest) in sorted(entries.items()):
            parts += (_HEAD.pack(len(path), status, digest), path)
        self._is_dirty = False
        body = b"".join(parts)
        return _MAGIC + sha256_of(body).digest() + body


def _parse(blob: bytes) -> dict[bytes, tuple[bytes, bytes]]:
    at, end = len(_MAGIC) + _SUM, len(blob)
    if not blob.startswith(_MAGIC) or sha256_of(blob[at:]).digest() != blob[at - _SUM : at]:
        return {}
    entries = {}
    while at + _HEAD.size <= end:
        length, status, digest = _HEAD.unpack_from(blob, at)
        at += _HEAD.size
        entries[blob[at : at + length]] = (status, digest)
        at += length
    return entries if at == end else {}
