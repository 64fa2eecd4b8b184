# SPDX-License-Identifier: Apache-2.0
"""A layer as a file that the kernel can mount: its tar, untouched, with an EROFS index behind it.

docs/adr/0096-layers-as-erofs.md says when this is done instead of unpacking.
"""

from __future__ import annotations

import os

from lamina.layer.apply import AppliedLayer, Hashed
from lamina.layer.entry import EntryType
from lamina.layer.erofs import BODY, write_index
from lamina.layer.lower import Lowers
from lamina.layer.nodes import NodeTree
from lamina.layer.tarread import read_tar
from lamina.start.record import Record
from lamina.system.paths import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

    from lamina.layer.entry import Entry
    from lamina.spec.digest import DiffID
    from lamina.tasks import CancelToken


class WrappedLayer(Record):
    """What was read, as of `apply_layer`, and the entry of the layer's root directory."""

    applied: AppliedLayer
    root: Entry


class _Teed:
    """A stream that is written to the image as it is read."""

    def __init__(self, stream: IO[bytes], fd: int) -> None:
        self._stream = stream
        self._fd = fd
        self.end = BODY

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        view = memoryview(data)
        try:
            while view:
                count = os.pwrite(self._fd, view, self.end)
                self.end += count
                view = view[count:]
        except OSError as error:
            raise failure(error, "cannot write the image of a layer") from error
        return data


def wrap_layer(
    tar: IO[bytes],
    path: str,
    *,
    expected: DiffID | None,
    lowers: Sequence[str],
    cancel: CancelToken | None = None,
) -> WrappedLayer:
    """Write an uncompressed layer and its index to the new file `path`.

    Mounted, it shows what `apply_layer` makes of the layer for root, over the same `lowers`. The
    index is written once the whole stream was read and has the digest `expected`: without it
    nothing can be mounted. The caller removes the file if this raises or the digest is another.

    Raises:
        LaminaError: as `apply_layer`.
        NotWrappable: the layer must be unpacked.
        Cancelled: `cancel` was set.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        tree = NodeTree(Lowers(lowers))
        teed = _Teed(tar, fd)
        with Hashed(teed, cancel) as stream:  # type: ignore[arg-type]  # only read() is used
            for entry, reader in read_tar(stream):  # type: ignore[arg-type]  # as above
                tree.place(entry, reader.segments(BODY) if entry.type is EntryType.FILE else ())
            applied = stream.finish()
        tree.finish()
        if expected is None or applied.diff_id == expected:
            try:
                write_index(fd, tree.root, end=teed.end)
            except OSError as error:
                raise failure(error, "cannot write the index of a layer") from error
        return WrappedLayer(applied, tree.root.entry)
    finally:
        os.close(fd)
