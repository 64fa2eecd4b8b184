# SPDX-License-Identifier: Apache-2.0
"""Secrets of a build, and their values kept out of what a step prints.

A value is read when a step needs it, lives in memory and in files of a tmpfs of this process's
mount namespace only, and is in no key, record, event or error.
"""

from __future__ import annotations

import os

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MAX_SECRET = 500 * 1024  # bytes; BuildKit's limit
MASK = b"***"
_SHORTEST = 3  # bytes; masking a shorter value would make a log unreadable and hide nothing
_HEAD = 16  # bytes of a value that are looked for first
_LINE = 8  # bytes; lines of a longer secret that are masked on their own


class Secrets:
    """Secrets by id: a file's path, or a value. Its representation shows ids only."""

    def __init__(self, files: Mapping[str, str], values: Mapping[str, bytes]) -> None:
        self._files = dict(files)
        self._values = dict(values)

    def __repr__(self) -> str:
        return f"Secrets({sorted({*self._files, *self._values})})"

    def get(self, id: str) -> bytes | None:
        """The value; None if no such secret was given.

        Raises:
            LaminaError: its file cannot be read or is too large.
        """
        if id in self._values:
            return self._values[id]
        path = self._files.get(id)
        if path is None:
            return None
        try:
            with open(path, "rb") as file:
                value = file.read(MAX_SECRET + 1)
        except OSError as error:
            text = f"cannot read secret {id}: {path}: {error.strerror}"
            kind = Kind.NOT_FOUND if isinstance(error, FileNotFoundError) else Kind.DENIED
            raise LaminaError(text, kind=kind) from error
        if len(value) > MAX_SECRET:
            raise LaminaError(f"secret {id} is larger than 500 KB", kind=Kind.EXHAUSTED)
        return value


def check_file(id: str, path: str) -> None:
    """Raise LaminaError, before anything runs, unless the file of a secret can be used."""
    try:
        size = os.stat(path).st_size
    except OSError as error:
        text = f"secret {id}: cannot use {path}: {error.strerror}"
        raise LaminaError(text, kind=Kind.NOT_FOUND) from error
    if size > MAX_SECRET:
        raise LaminaError(f"secret {id} is larger than 500 KB", kind=Kind.EXHAUSTED)


class Redactor:
    """Passes output on with the values of secrets replaced, even where a value comes in pieces.

    At most the beginning of a possible value is held back; `flush` passes it on.
    """

    def __init__(self, values: Iterable[bytes], output: Callable[[int, bytes], None]) -> None:
        self._words = sorted(_words(values), key=len, reverse=True)
        self._output = output
        self._held: dict[int, bytes] = {}

    def write(self, stream: int, data: bytes) -> None:
        """Output of a step on `stream`."""
        if not self._words:
            self._output(stream, data)
            return
        data = self._held.pop(stream, b"") + data
        keep = self._possible_start(data)
        ready, self._held[stream] = self._masked(data, keep)
        if ready:
            self._output(stream, ready)

    def flush(self) -> None:
        """Pass on what was held back: nothing more comes."""
        for stream, data in self._held.items():
            if data:
                self._output(stream, data)
        self._held.clear()

    def _masked(self, data: bytes, keep: int) -> tuple[bytes, bytes]:
        """The data that is complete, masked; and the last `keep` bytes unless a mask took them."""
        ready: list[bytes] = []
        at, limit = 0, len(data) - keep
        while at < limit:
            start, word = self._next(data, at)
            if start < 0 or start >= limit:
                break
            ready += [data[at:start], MASK]
            at = start + len(word)
        if at < limit:
            ready.append(data[at:limit])
            at = limit
        return b"".join(ready), data[at:]

    def _next(self, data: bytes, at: int) -> tuple[int, bytes]:
        """The first value in `data` from `at`, the longest one there; -1 if there is none."""
        best, found = -1, b""
        for word in self._words:
            start = data.find(word, at)
            if start >= 0 and (best < 0 or start < best):
                best, found = start, word
        return best, found

    def _possible_start(self, data: bytes) -> int:
        """How many bytes at the end may be the beginning of a value."""
        return max(_overlap(data, word) for word in self._words)


def _overlap(data: bytes, word: bytes) -> int:
    """The longest end of `data` that begins `word` and is shorter than it."""
    first = max(0, len(data) - len(word) + 1)
    head = word[:_HEAD]
    at = data.find(head, first)
    while at >= 0:  # few places: the rest of the value is compared only where its head is
        if word.startswith(data[at:]):
            return len(data) - at
        at = data.find(head, at + 1)
    for size in range(min(len(head) - 1, len(data) - first), 0, -1):
        if data.endswith(word[:size]):
            return size
    return 0


def _words(values: Iterable[bytes]) -> set[bytes]:
    """What is masked: each value without the white space around it, and its longer lines."""
    words = set()
    for value in values:
        text = value.strip()
        if len(text) >= _SHORTEST:
            words.add(text)
        lines = [line.strip() for line in text.split(b"\n")]
        if len(lines) > 1:
            words.update(line for line in lines if len(line) >= _LINE)
    return words
