# SPDX-License-Identifier: Apache-2.0
"""Namespaces for RUN steps, used again by later steps of one build (as BuildKit does)."""

from __future__ import annotations

from lamina.start.lowlevel import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from lamina.container.network.attachment import Attachment, Network
    from lamina.container.network.usernet import UserNetwork


class Borrowed:
    """A namespace of the pool inside a `with`, which gives its path."""

    def __init__(self, pool: NetworkPool, *, reuse: bool) -> None:
        self._pool = pool
        self._reuse = reuse

    def __enter__(self) -> str:
        self._attachment = self._pool.take(reuse=self._reuse)
        return self._attachment.ns_path

    def __exit__(self, *exc: object) -> None:
        self._pool.give_back(self._attachment, reuse=self._reuse)


class NetworkPool:
    """Idle attachments of one build; at most as many as its steps ran at one time.

    Steps that overlap never share a namespace. `close` (or leaving the `with` block) releases all;
    call it after the last step has ended.
    """

    def __init__(self, network: Network | UserNetwork, owner: str, *, hold_pid: int) -> None:
        self._network = network
        self._owner = owner
        self._hold_pid = hold_pid
        self._lock = allocate_lock()
        self._idle: list[Attachment] = []
        self._all: list[Attachment] = []

    def namespace(self, *, reuse: bool = True) -> Borrowed:
        """The path of a namespace that nobody else uses meanwhile.

        With `reuse` False it is fresh, and gone afterwards: for a step that is allowed to change
        interfaces and rules (a privileged one). Entering raises what `Network.attach` raises.
        """
        return Borrowed(self, reuse=reuse)

    def take(self, *, reuse: bool) -> Attachment:
        """An attachment that nobody uses. `give_back` it."""
        with self._lock:
            if reuse and self._idle:
                return self._idle.pop()
        attachment = self._network.attach(self._owner, hold_pid=self._hold_pid)
        with self._lock:
            self._all.append(attachment)
        return attachment

    def give_back(self, attachment: Attachment, *, reuse: bool) -> None:
        """Keep it for another step, or release it."""
        with self._lock:
            if reuse:
                self._idle.append(attachment)
                return
            self._all.remove(attachment)
        self._network.release(attachment)

    def close(self) -> None:
        """Release every namespace. Idempotent."""
        with self._lock:
            attachments, self._all, self._idle = self._all, [], []
        self._network.release_all(attachments)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
