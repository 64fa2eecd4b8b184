# SPDX-License-Identifier: Apache-2.0
"""A blob on its way from an upstream into the storage, read by any number of clients meanwhile.

    leader thread    upstream -> hash and file of an upload session -> blob
    clients          read the same file, up to what was written

1. The last byte is not `ready` before the blob is verified and stored: nobody gets the whole of
   something that is wrong.
2. A failure ends every reader; nothing is stored.
3. Readers come and go; the leader goes on without any.
"""

from __future__ import annotations

import os
import queue
import threading

from lamina.errors import LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Flight:
    """The bytes of one blob (`wire.Arriving`). `reader` is a descriptor of the file that they are
    written to; it is closed when nobody holds the flight any more.
    """

    def __init__(self, reader: int, size: int) -> None:
        self.size = size
        self._reader = reader
        self._written = 0
        self._whole = False
        self._error: LaminaError | None = None
        self._guard = threading.Lock()
        self._watchers: set[Callable[[], None]] = set()

    def __del__(self) -> None:
        os.close(self._reader)

    def ready(self) -> int:
        if self._error is not None:
            raise self._error
        return self._written if self._whole else min(self._written, self.size - 1)

    def read(self, offset: int, size: int, /) -> bytes:
        return os.pread(self._reader, size, offset)

    def watch(self, wake: Callable[[], None]) -> None:
        with self._guard:
            self._watchers.add(wake)

    def unwatch(self, wake: Callable[[], None]) -> None:
        with self._guard:
            self._watchers.discard(wake)

    def wait(self) -> None:
        """Return when the blob is stored. Raises LaminaError when it will not be."""
        news = threading.Event()
        self.watch(news.set)
        try:
            while not self._whole:
                self.ready()
                news.wait()
                news.clear()
        finally:
            self.unwatch(news.set)

    def advance(self, written: int) -> None:
        """So many bytes are in the file now."""
        self._written = written
        self._tell()

    def finish(self) -> None:
        """The blob is verified and stored."""
        self._whole = True
        self._tell()

    def fail(self, error: LaminaError) -> None:
        """It will never be whole."""
        self._error = error
        self._tell()

    def _tell(self) -> None:
        with self._guard:
            watchers = list(self._watchers)
        for wake in watchers:
            wake()


class Crew:
    """At most `size` threads that do what is submitted, in order. They do not keep the process: an
    upstream may be silent for a minute, and a registry that stops does not wait for it.
    """

    def __init__(self, size: int, *, name: str) -> None:
        self._size = size
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._threads = 0
        self._idle = 0

    def submit(self, work: Callable[[], None]) -> None:
        """Do it soon. It must not raise."""
        with self._guard:
            self._work.put(work)
            if self._idle < self._work.qsize() and self._threads < self._size:
                self._threads += 1
                threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._guard:
                self._idle += 1
            work = self._work.get()
            with self._guard:
                self._idle -= 1
            work()
            del work  # it may hold a flight
