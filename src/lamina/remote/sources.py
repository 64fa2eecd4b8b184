# SPDX-License-Identifier: Apache-2.0
"""`RemoteSources`: what a build asks of the network."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import contextmanager

from lamina.remote.download import Downloader
from lamina.remote.git import Git

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from lamina.plan.ops import GitSource, HttpSource
    from lamina.remote.download import Download
    from lamina.remote.git import RemoteRef
    from lamina.remote.settings import RemoteSettings
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

_YOUNG_SECONDS = 60.0  # in which a new directory may not have its lock yet


class RemoteSources:
    """A context manager: checkouts are gone after the block. Any thread may call its methods.

    Checkouts are below `tmp` in the store; those of a killed process are removed by the next one.
    """

    def __init__(
        self, store: Store, settings: RemoteSettings, *, clock: Callable[[], float]
    ) -> None:
        self._downloads = Downloader(store, settings, clock=clock)
        self._git = Git(settings)
        self._scratch = os.path.join(store.root, "tmp")
        self._open: list[tuple[int, str]] = []

    def url(self, url: str, *, cancel: CancelToken) -> Download:
        """What the URL has now, downloaded if it is not here. Raises LaminaError."""
        return self._downloads.current(url, cancel=cancel)

    def git(self, remote: str, ref: str, *, cancel: CancelToken) -> RemoteRef:
        """The commit that the ref is now. Raises LaminaError."""
        return self._git.resolve(remote, ref, cancel=cancel)

    def download(self, op: HttpSource, *, cancel: CancelToken) -> int:
        """Have the source's content in the content store; its mtime in POSIX seconds."""
        found = self._downloads.pinned(op.url, op.digest, cancel=cancel)
        return op.mtime if op.mtime is not None else found.mtime

    def checkout(self, op: GitSource, *, cancel: CancelToken) -> str:
        """The path of a directory with the source's tree, there until the block ends."""
        directory = self.directory("git-")
        return self._git.checkout(op, os.path.join(directory, "tree"), cancel=cancel)

    def directory(self, prefix: str) -> str:
        """A new directory, removed with all that is in it when the block ends."""
        os.makedirs(self._scratch, mode=0o700, exist_ok=True)
        sweep(self._scratch)
        path = tempfile.mkdtemp(prefix=prefix, dir=self._scratch)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open.append((lock, path))
        fcntl.flock(lock, fcntl.LOCK_EX)  # held while we live: see sweep
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the directories. Idempotent."""
        while self._open:
            lock, path = self._open.pop()
            os.close(lock)
            shutil.rmtree(path, ignore_errors=True)


def sweep(scratch: str) -> None:
    """Remove temporary directories whose process is gone: nobody holds their lock."""
    for name in os.listdir(scratch):
        path = os.path.join(scratch, name)
        with _opened(path) as fd:
            if fd is None:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if os.fstat(fd).st_mtime < time.time() - _YOUNG_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _opened(path: str) -> Iterator[int | None]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)
