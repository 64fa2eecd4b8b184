# SPDX-License-Identifier: Apache-2.0
"""`RemoteSources`: what a build asks of the network."""

from __future__ import annotations

import os

from lamina.remote.download import Downloader
from lamina.remote.git import Git
from lamina.remote.http import HttpClient
from lamina.system.temporary import make_temporary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from lamina.plan.ops import GitSource, HttpSource
    from lamina.remote.download import Download
    from lamina.remote.git import RemoteRef
    from lamina.remote.settings import RemoteSettings
    from lamina.store.ports import Store
    from lamina.system.temporary import TemporaryDirectory
    from lamina.tasks import CancelToken


class RemoteSources:
    """A context manager: checkouts are gone after the block. Any thread may call its methods.

    Checkouts are below `tmp` in the store; those of a killed process are removed by the next one.
    """

    def __init__(
        self, store: Store, settings: RemoteSettings, *, clock: Callable[[], float]
    ) -> None:
        client = HttpClient(settings)
        self._downloads = Downloader(store, client, clock=clock)
        self._git = Git(settings, client)
        self._scratch = os.path.join(store.root, "tmp")
        self._open: list[TemporaryDirectory] = []

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
        made = make_temporary(self._scratch, prefix)
        self._open.append(made)
        return made.path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the directories. Idempotent."""
        while self._open:
            self._open.pop().remove()
