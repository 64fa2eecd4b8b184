# SPDX-License-Identifier: Apache-2.0
"""What an archive holds: every member's digest, from one pass over it in flat memory.

Member names are keys of a table and nothing else: no path is made of them, no link is followed on
a filesystem. Small JSON members are kept whole.
"""

from __future__ import annotations

import hashlib

from lamina.errors import Kind, LaminaError
from lamina.layer.compress import decompressed
from lamina.layer.entry import EntryType
from lamina.layer.tarread import read_tar
from lamina.spec.digest import DiffID, Digest
from lamina.spec.document import MAX_DOCUMENT
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from lamina.layer.tarread import EntryReader
    from lamina.tasks import CancelToken

MAX_MEMBERS = 100_000  # an archive of a thousand images has less
MAX_KEPT = 64 * 1024 * 1024  # bytes of JSON documents kept in memory
_READ = 1 << 20
# magic numbers: RFC 1952 §2.3.1, RFC 8878 §3.1.1, the xz and bzip2 file formats
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
)


class InvalidArchive(LaminaError):
    """The archive is not one of images, or contradicts itself."""

    kind = Kind.INVALID


class Member(Record):
    """A regular file: `digest` and `size` of its bytes; `diff_id` and `diff_size` of what they
    decompress to (the same if `compression` is `uncompressed`); `data` if it is small JSON.
    """

    name: str
    digest: Digest
    size: int
    diff_id: DiffID
    diff_size: int
    compression: str
    data: bytes | None = None


class Contents:
    """The members of an archive by name."""

    def __init__(self, members: dict[str, Member], links: dict[str, str]) -> None:
        self._members = members
        self._links = links

    def get(self, name: str) -> Member | None:
        """The member; a link inside the archive (old `docker save`) is looked up once."""
        key = clean(name)
        return self._members.get(key) or self._members.get(self._links.get(key, ""))

    def need(self, name: str) -> Member:
        """The member. Raises InvalidArchive if it is missing."""
        member = self.get(name)
        if member is None:
            raise InvalidArchive(
                f"the archive has no member {name!r}", hint="the archive is incomplete"
            )
        return member

    def document(self, name: str) -> bytes:
        """A JSON member's bytes. Raises InvalidArchive: missing, not JSON or too large."""
        return json_of(self.need(name), repr(name))


def json_of(member: Member, what: str) -> bytes:
    """A JSON member's bytes. Raises InvalidArchive: not JSON or too large."""
    if member.data is not None:
        return member.data
    if member.size > MAX_DOCUMENT:
        raise InvalidArchive(
            f"{what} in the archive has {member.size} bytes, and may have {MAX_DOCUMENT}"
        )
    raise InvalidArchive(f"{what} in the archive is not a JSON document")


def clean(name: str) -> str:
    """A member's name as the table spells it: no `.`, no empty components, no slash in front."""
    return "/".join(part for part in name.split("/") if part not in {"", "."})


class _Tee:
    """A stream that hashes and counts what is read from it."""

    def __init__(self, reader: EntryReader, head: bytes, cancel: CancelToken) -> None:
        self._reader = reader
        self._head = head
        self._cancel = cancel
        self.hash = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1, /) -> bytes:
        self._cancel.check()
        if self._head:
            size = len(self._head) if size < 0 else size
            data, self._head = self._head[:size], self._head[size:]
        else:
            data = self._reader.read(_READ if size < 0 else size)
        self.hash.update(data)
        self.size += len(data)
        return data

    def close(self) -> None:
        """Nothing to close: the archive stays open."""


def scan(stream: IO[bytes], *, cancel: CancelToken) -> Contents:
    """The contents of the (possibly compressed) archive in `stream`.

    Raises:
        LaminaError: INVALID for what is no archive or is beyond the caps, INTEGRITY for damaged
            compressed data.
    """
    members: dict[str, Member] = {}
    links: dict[str, str] = {}
    kept = 0
    for entry, reader in read_tar(decompressed(stream)):
        cancel.check()
        name = entry.path.decode("utf-8", "surrogateescape")
        if len(members) + len(links) > MAX_MEMBERS:
            raise InvalidArchive(f"the archive has more than {MAX_MEMBERS} members")
        if entry.type is EntryType.FILE:
            if name in members:
                raise InvalidArchive(f"the archive has two members {name!r}")
            members[name] = member = _member(name, reader, cancel)
            kept += len(member.data or b"")
        elif entry.type in {EntryType.SYMLINK, EntryType.HARDLINK}:
            links[name] = _link_target(name, entry.linkname, entry.type)
        elif entry.type is not EntryType.DIR:
            raise InvalidArchive(f"the archive has a device or pipe: {name!r}")
        if kept > MAX_KEPT:
            raise InvalidArchive(f"the archive has more than {MAX_KEPT} bytes of JSON documents")
    return Contents(members, links)


def _link_target(name: str, target: bytes, kind: EntryType) -> str:
    """The member a link names, by text alone; one that leaves the archive names none."""
    text = target.decode("utf-8", "surrogateescape")
    parts = [] if kind is EntryType.HARDLINK else name.split("/")[:-1]
    for part in text.split("/"):
        if part == "..":
            if not parts:
                return ""
            parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
    return "" if text.startswith("/") else "/".join(parts)


def _member(name: str, reader: EntryReader, cancel: CancelToken) -> Member:
    head = _fill(reader, 4096)
    compression = next((kind for magic, kind in _MAGIC if head.startswith(magic)), "uncompressed")
    tee = _Tee(reader, head, cancel)
    if compression != "uncompressed":
        diff_id, diff_size = _decompressed_digest(name, tee)
    data = b"" if head.lstrip()[:1] in {b"{", b"["} else None
    while piece := tee.read(_READ):
        if data is not None:
            data = data + piece if len(data) + len(piece) <= MAX_DOCUMENT else None
    digest = Digest("sha256", tee.hash.hexdigest())
    if compression == "uncompressed":
        diff_id, diff_size = DiffID(digest), tee.size
    return Member(name, digest, tee.size, diff_id, diff_size, compression, data)


def _fill(reader: EntryReader, size: int) -> bytes:
    head = b""
    while len(head) < size and (piece := reader.read(size - len(head))):
        head += piece
    return head


def _decompressed_digest(name: str, tee: _Tee) -> tuple[DiffID, int]:
    found, size = hashlib.sha256(), 0
    try:
        stream = decompressed(tee)  # type: ignore[arg-type]  # only read() is used
        while piece := stream.read(_READ):
            found.update(piece)
            size += len(piece)
    except LaminaError as error:
        raise error.about(f"member {name!r} of the archive") from error
    return DiffID(Digest("sha256", found.hexdigest())), size
