# SPDX-License-Identifier: Apache-2.0
"""A layer's mountable form, made in the pass that writes its tar: each file is read once.

What comes of it is what unpacking the tar would give: a directory as of `apply.apply_layer`, or an
image as of `wrap.wrap_layer`.
"""

from __future__ import annotations

import os
from functools import partial

from lamina.layer.entry import EntryType
from lamina.layer.erofs import BODY, NotWrappable, write_index
from lamina.layer.lower import Lowers
from lamina.layer.nodes import NodeTree
from lamina.layer.place import Policy, Tree
from lamina.layer.tarwrite import CHUNK, small_content
from lamina.start.record import replace
from lamina.system.paths import failure, open_beneath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Protocol

    from lamina.layer.entry import Entry, Item, Items

    class Twin(Protocol):
        """What `create.create_layer` tells of a layer while it writes it. `close` it."""

        def items(self, items: Items) -> Iterator[Item]:
            """The same items; the tar is made of these."""

        def member(self, entry: Entry, offset: int) -> None:
            """The content of the entry begins at this offset of the tar."""

        def take(self, data: bytes) -> None:
            """The next piece of the tar."""

        def finish(self) -> None:
            """The tar is complete: complete the layer.

            Raises:
                NotWrappable: the layer must be unpacked from its tar.
            """

        def close(self) -> None:
            """Free every descriptor. Idempotent."""


_SECOND = 1_000_000_000


def _as_in_tar(entry: Entry) -> Entry:
    """The entry as the tar gives it back: times in whole seconds."""
    return replace(entry, mtime_ns=entry.mtime_ns // _SECOND * _SECOND)


class DirectoryTwin:
    """The layer in the directory `target`, over the directories `lowers` (top first)."""

    def __init__(self, target: str, *, lowers: Sequence[str]) -> None:
        self._target = os.fsencode(target)
        self._tree = Tree(target, policy=Policy(overlay=True), lowers=Lowers(lowers))
        self._is_open = True

    def items(self, items: Items) -> Iterator[Item]:
        place = self._tree.place
        for entry, content in items:
            kept = _as_in_tar(entry) if entry.mtime_ns % _SECOND else entry
            if not entry.size:
                place(kept, content)
                yield entry, content
            elif entry.size < CHUNK:
                data = small_content(entry, content)
                place(kept, data)
                yield entry, data
            else:  # the tar is made of what was placed
                place(kept, content)
                yield entry, partial(open_beneath, self._target, entry.path, os.O_RDONLY)

    def member(self, entry: Entry, offset: int) -> None: ...

    def take(self, data: bytes) -> None: ...

    def finish(self) -> None:
        self._tree.finish()

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._tree.__exit__()


class ImageTwin:
    """The layer in the new file `path`, over the directories `lowers` (top first)."""

    def __init__(self, path: str, *, lowers: Sequence[str]) -> None:
        self._body = self._end = BODY
        self._tree = NodeTree(Lowers(lowers))
        self._refused: BaseException | None = None
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    @property
    def root(self) -> Entry:
        """The entry of the layer's root directory."""
        return self._tree.root.entry

    def items(self, items: Items) -> Iterator[Item]:
        return iter(items)

    def member(self, entry: Entry, offset: int) -> None:
        if self._refused is not None:
            return
        segments = ((0, self._body + offset, entry.size),) if entry.size else ()
        try:
            has_content = entry.type is EntryType.FILE
            kept = _as_in_tar(entry) if entry.mtime_ns % _SECOND else entry
            self._tree.place(kept, segments if has_content else ())
        except NotWrappable as error:
            self._refused = error

    def take(self, data: bytes) -> None:
        if self._refused is not None:
            return
        view = memoryview(data)
        try:
            while view:
                count = os.pwrite(self._fd, view, self._end)
                self._end += count
                view = view[count:]
        except OSError as error:
            raise failure(error, "cannot write the image of a layer") from error

    def finish(self) -> None:
        if self._refused is not None:
            raise self._refused
        self._tree.finish()
        try:
            write_index(self._fd, self._tree.root, end=self._end)
        except OSError as error:
            raise failure(error, "cannot write the index of a layer") from error

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
