# SPDX-License-Identifier: Apache-2.0
"""Layers applied to a directory in overlay form, and archives extracted to a plain one."""

from __future__ import annotations

import hashlib

from lamina.layer.lower import Lowers
from lamina.layer.place import Policy, Tree
from lamina.layer.tarread import read_tar
from lamina.record import record
from lamina.spec.digest import DiffID, Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

    from lamina.layer.entry import Items
    from lamina.tasks import CancelToken

_CHUNK = 1 << 20


@record
class AppliedLayer:
    """What was read while applying: the digest and size in bytes of the whole tar stream."""

    diff_id: DiffID
    size: int


class _Hashed:
    """A stream that hashes what is read from it."""

    def __init__(self, stream: IO[bytes], cancel: CancelToken | None) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._cancel = cancel
        self._size = 0

    def read(self, size: int = -1, /) -> bytes:
        if self._cancel is not None:
            self._cancel.check()
        data = self._stream.read(size)
        self._hash.update(data)
        self._size += len(data)
        return data

    def finish(self) -> AppliedLayer:
        """Read to the end (padding after the archive is part of the diffID)."""
        while self.read(_CHUNK):
            pass
        return AppliedLayer(DiffID(Digest("sha256", self._hash.hexdigest())), self._size)


def apply_layer(
    tar: IO[bytes],
    target: str,
    *,
    lowers: Sequence[str] | None = None,
    privileged: bool = True,
    cancel: CancelToken | None = None,
) -> AppliedLayer:
    """Apply an uncompressed layer to the directory `target`, in the form overlayfs reads.

    Whiteouts become 0:0 character devices, opaque markers the attribute trusted.overlay.opaque
    (user.overlay.opaque if not `privileged`; device nodes are then left out). `lowers` are the
    layer directories below, top first: they give missing parent directories their metadata, links
    on the way their target, hard links their file (copied up), and tell which whiteouts hide
    something. An empty sequence says that this is the bottom layer; None, that nothing is known:
    every whiteout is then written.

    The stream is read to its end and hashed; the caller compares the diffID, and throws `target`
    away if this raises. Nothing outside `target` is touched, whatever the archive says.

    Raises:
        LaminaError: INVALID for a malformed archive or one that cannot be applied, EXHAUSTED when
            the disk is full, DENIED, SYSTEM; what reading `tar` raises.
        Cancelled: `cancel` was set.
    """
    stream = _Hashed(tar, cancel)
    policy = Policy(overlay=True, privileged=privileged)
    below = None if lowers is None else Lowers(lowers)
    with Tree(target, policy=policy, lowers=below) as tree:
        for entry, reader in read_tar(stream):  # type: ignore[arg-type]  # only read() is used
            tree.place(entry, reader)
        applied = stream.finish()
        tree.finish()
    return applied


def _items(source: Items | IO[bytes]) -> Items:
    if hasattr(source, "read"):
        return read_tar(source)  # type: ignore[arg-type]  # what can be read is the stream
    return source


def extract(
    source: Items | IO[bytes], target: str, *, owners: bool = False, privileged: bool = False
) -> None:
    """Extract items or an uncompressed tar stream into the existing directory `target`.

    Existing directories are kept and merged, other files replaced; links in `target` are followed
    with `target` as the root. Without `owners` everything belongs to the caller and loses setuid
    and setgid; without `privileged` device nodes are left out. Whiteouts are refused: they mean
    nothing outside a layer.

    Raises:
        LaminaError: as `apply_layer`.
    """
    items: Items = _items(source)
    policy = Policy(overlay=False, privileged=privileged, owners=owners)
    with Tree(target, policy=policy) as tree:
        for entry, content in items:
            tree.place(entry, content)
        tree.finish()
