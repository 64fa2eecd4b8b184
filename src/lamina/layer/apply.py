# SPDX-License-Identifier: Apache-2.0
"""Layers applied to a directory in overlay form, and archives extracted to a plain one."""

from __future__ import annotations

import hashlib
import queue
import threading

from lamina.layer.lower import Lowers
from lamina.layer.place import Policy, Tree
from lamina.layer.tarread import read_tar
from lamina.spec.digest import DiffID, Digest
from lamina.start.record import Record
from lamina.system.userns import is_host_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO, Self

    from lamina.layer.entry import Items
    from lamina.tasks import CancelToken

_CHUNK = 1 << 20
DEPTH = 8  # pieces of _CHUNK bytes that may be read ahead


class AppliedLayer(Record):
    """What was read while applying: the digest and size in bytes of the whole tar stream."""

    diff_id: DiffID
    size: int


class Hashed:
    """A stream that hashes what is read from it; the third read moves both to a thread.

    Decompressing and hashing then overlap with making files. The thread has a small lead only.
    """

    def __init__(self, stream: IO[bytes], cancel: CancelToken | None) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._cancel = cancel
        self._size = 0
        self._reads = 0
        self._ahead: _Ahead | None = None

    def read(self, _size: int = -1, /) -> bytes:
        """The next piece, at most _CHUNK bytes whatever is asked for; empty at the end."""
        if self._cancel is not None:
            self._cancel.check()
        self._reads += 1
        if self._reads == 3:
            self._ahead = _Ahead(self._next)
        return self._next() if self._ahead is None else self._ahead.take()

    def _next(self) -> bytes:
        data = self._stream.read(_CHUNK)
        self._hash.update(data)
        self._size += len(data)
        return data

    def finish(self) -> AppliedLayer:
        """Read to the end (padding after the archive is part of the diffID)."""
        while self.read():
            pass
        return AppliedLayer(DiffID(Digest("sha256", self._hash.hexdigest())), self._size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._ahead is not None:
            self._ahead.stop()


class _Ahead:
    """Calls `produce` in a thread, at most DEPTH pieces ahead, until it gives an empty one."""

    def __init__(self, produce: Callable[[], bytes]) -> None:
        self._produce = produce
        self._queue: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()
        self._room = threading.Semaphore(DEPTH)
        self._stopped = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="read-layer")
        self._thread.start()

    def take(self) -> bytes:
        """The next piece, empty at the end; raises what `produce` raised."""
        if self._ended:
            return b""
        piece = self._queue.get()
        self._room.release()
        if isinstance(piece, bytes):
            self._ended = not piece
            return piece
        self._ended = True
        raise piece

    def stop(self) -> None:
        """End the thread, once the call that is running returns."""
        self._stopped = True
        self._room.release()
        self._thread.join()

    def _run(self) -> None:
        piece = b"-"
        while piece:
            self._room.acquire()
            if self._stopped:
                return
            try:
                piece = self._produce()
            except BaseException as error:  # noqa: BLE001  # raised again by the reader
                self._queue.put(error)
                return
            self._queue.put(piece)


def apply_layer(
    tar: IO[bytes],
    target: str,
    *,
    lowers: Sequence[str] | None = None,
    privileged: bool | None = None,
    cancel: CancelToken | None = None,
) -> AppliedLayer:
    """Apply an uncompressed layer to the directory `target`, in the form overlayfs reads.

    Whiteouts become 0:0 character devices, opaque markers the attribute trusted.overlay.opaque
    (user.overlay.opaque if not `privileged`; device nodes are then left out, as rootless Docker does;
    None: as this process is). `lowers` are the
    layer directories below, top first: they give missing parent directories their metadata, links
    on the way their target, hard links their file (copied up), and tell which whiteouts hide
    something. An empty sequence says that this is the bottom layer; None, that nothing is known:
    every whiteout is then written.

    The stream is read to its end and hashed; the caller compares the diffID, and throws `target`
    away if this raises. A large stream is read from another thread, which has ended when this
    returns. Nothing outside `target` is touched, whatever the archive says.

    Raises:
        LaminaError: INVALID for a malformed archive or one that cannot be applied, EXHAUSTED when
            the disk is full, DENIED, SYSTEM; what reading `tar` raises.
        Cancelled: `cancel` was set.
    """
    policy = Policy(overlay=True, privileged=is_host_root() if privileged is None else privileged)
    below = None if lowers is None else Lowers(lowers)
    with Hashed(tar, cancel) as stream, Tree(target, policy=policy, lowers=below) as tree:
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
    source: Items | IO[bytes],
    target: str,
    *,
    owners: bool = False,
    privileged: bool = False,
    setid: bool | None = None,
) -> None:
    """Extract items or an uncompressed tar stream into the existing directory `target`.

    Existing directories are kept and merged, other files replaced; links in `target` are followed
    with `target` as the root. Without `owners` everything belongs to the caller; without
    `privileged` device nodes are left out. `setid` keeps setuid and setgid bits; by default they
    are kept with `owners` only, because they mean another thing with another owner. Whiteouts are
    refused: they mean nothing outside a layer.

    Raises:
        LaminaError: as `apply_layer`.
    """
    items: Items = _items(source)
    keep = owners if setid is None else setid
    policy = Policy(overlay=False, privileged=privileged, owners=owners, setid=keep)
    with Tree(target, policy=policy) as tree:
        for entry, content in items:
            tree.place(entry, content)
        tree.finish()
