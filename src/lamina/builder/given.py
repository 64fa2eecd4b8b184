# SPDX-License-Identifier: Apache-2.0
"""Content that is in no tree: heredocs, and downloads in the content store.

They are selected as one file each, so that copying treats them as any other.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat

from lamina.builder.changes import Lazy
from lamina.builder.listing import SHOWN
from lamina.builder.selection import Match, Picked, Selection
from lamina.errors import Kind, LaminaError, never
from lamina.layer.entry import EntryType
from lamina.plan.ops import GitSource, HttpSource, InlineSource
from lamina.redaction import redacted
from lamina.solver.keys import given_content
from lamina.spec.digest import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from lamina.layer.entry import Entry, Item
    from lamina.plan.ops import PinnedSource
    from lamina.store.ports import ContentStore

_INLINE_MODE = 0o644  # BuildKit's for a heredoc
_DOWNLOAD_MODE = 0o600  # BuildKit's for a URL


class GivenContent(Lazy):
    """Content that can be opened any number of times; the caller of `open` closes the stream."""

    def open(self) -> IO[bytes]:
        """The whole content from its start."""
        raise NotImplementedError

    def head(self, size: int) -> bytes:
        with self.open() as stream:
            return stream.read(size)

    def items(self, entry: Entry) -> Iterator[Item]:
        with self.open() as stream:
            yield entry, stream


class _Text(GivenContent):
    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def open(self) -> IO[bytes]:
        return io.BytesIO(self._raw)


class _Blob(GivenContent):
    """A blob of the store, checked again while a layer is made of it."""

    def __init__(self, content: ContentStore, digest: Digest) -> None:
        self._content = content
        self._digest = digest

    def open(self) -> IO[bytes]:
        return self._content.open(self._digest)

    def items(self, entry: Entry) -> Iterator[Item]:
        with self.open() as stream:
            reader = _Hashing(stream)
            yield entry, reader
            if reader.hexdigest() != self._digest.hex:
                raise LaminaError(
                    f"{self._digest} in the store is damaged",
                    kind=Kind.INTEGRITY,
                    hint="remove it with 'lamina gc' or delete the file, and build again",
                )


class _Hashing:
    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._sha = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._sha.update(data)
        return data

    def hexdigest(self) -> str:
        return self._sha.hexdigest()


def select_inline(op: InlineSource) -> Selection:
    """The files of heredocs; they are as old as the epoch, so that a layer of them is always the
    same.
    """
    matches = []
    for name, text in op.files:
        raw = text.encode("utf-8", "surrogateescape")
        matches.append(_match(name, _Text(raw), mode=_INLINE_MODE, size=len(raw), mtime=0))
    return Selection(given_content(op), tuple(matches))


def select_download(op: HttpSource, content: ContentStore, *, mtime: int) -> Selection:
    """The file of a URL, whose content is in the store; `mtime` in POSIX seconds."""
    size = content.info(op.digest).size
    match = _match(op.name, _Blob(content, op.digest), mode=_DOWNLOAD_MODE, size=size, mtime=mtime)
    return Selection(given_content(op), (match,))


def given_listing(op: PinnedSource) -> dict[str, str]:
    """What such a source holds, as in `selection.listing`; of a commit its name. Nothing is fetched
    for it.
    """
    if isinstance(op, InlineSource):
        texts = {name: text.encode("utf-8", "surrogateescape") for name, text in op.files}
        return {
            f"<<{name}": f"file {_INLINE_MODE:04o} - {Digest.of(raw).hex[:SHOWN]}"
            for name, raw in texts.items()
        }
    if isinstance(op, HttpSource):
        return {op.name: f"file {_DOWNLOAD_MODE:04o} - {op.digest.hex[:SHOWN]}"}
    if isinstance(op, GitSource):
        return {redacted(op.remote): f"commit - - {op.commit}"}
    return never(op)


def _match(name: str, content: GivenContent, *, mode: int, size: int, mtime: int) -> Match:
    path = os.fsencode(name)
    seconds = float(mtime)
    status = os.stat_result(
        (
            *(stat.S_IFREG | mode, 0, 0, 1, 0, 0, size, mtime, mtime, mtime),
            *(seconds, seconds, seconds, *[mtime * 1_000_000_000] * 3),
        )
    )
    picked = Picked(b"", path, EntryType.FILE, status, given=content)
    return Match(path, False, (picked,))
