# SPDX-License-Identifier: Apache-2.0
"""Namespaces for RUN steps, used again by later steps of one build (as BuildKit does)."""

from __future__ import annotations

import threading
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from lamina.container.network import Attachment, Network


class NetworkPool:
    """Idle attachments of one build; at most as many as its steps ran at one time.

    Steps that overlap never share a namespace. `close` (or leaving the `with` block) releases all;
    call it after the last step has ended.
    """

    def __init__(self, network: Network, owner: str, *, hold_pid: int) -> None:
        self._network = network
        self._owner = owner
        self._hold_pid = hold_pid
        self._lock = threading.Lock()
        self._idle: list[Attachment] = []
        self._all: list[Attachment] = []

    @contextmanager
    def namespace(self, *, reuse: bool = True) -> Iterator[str]:
        """The path of a namespace that nobody else uses meanwhile.

        With `reuse` False it is fresh, and gone afterwards: for a step that is allowed to change
        interfaces and rules (a privileged one). Raises what `Network.attach` raises.
        """
        attachment = self._take() if reuse else None
        if attachment is None:
            attachment = self._network.attach(self._owner, hold_pid=self._hold_pid)
            with self._lock:
                self._all.append(attachment)
        try:
            yield attachment.ns_path
        finally:
            if reuse:
                with self._lock:
                    self._idle.append(attachment)
            else:
                with self._lock:
                    self._all.remove(attachment)
                self._network.release(attachment)

    def close(self) -> None:
        """Release every namespace. Idempotent."""
        with self._lock:
            attachments, self._all, self._idle = self._all, [], []
        self._network.release_all(attachments)

    def _take(self) -> Attachment | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
