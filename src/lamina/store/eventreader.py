# SPDX-License-Identifier: Apache-2.0
"""Reads the event log (`store/eventlog`) while others write and rotate it."""

from __future__ import annotations

import os

from lamina.start.jsontext import loads
from lamina.start.record import Record
from lamina.store.eventlog import FILE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO, Self

_BLOCK = 64 * 1024


class Occurrence(Record):
    """One event: `at` in POSIX nanoseconds, the rest as `eventlog.note` was told."""

    at: int
    type: str
    action: str
    id: str
    attributes: tuple[tuple[str, str], ...]


class EventReader:
    """The events of the store at `root`, oldest first. A context manager.

    Begins with all that is kept, or with what comes from now on (`from_end`).
    """

    def __init__(self, root: str, *, from_end: bool) -> None:
        self._path = f"{root}/{FILE}"
        self._partial = b""
        self._older, self._file = self._open()
        if from_end:
            if self._older is not None:
                self._older.close()
                self._older = None
            if self._file is not None:
                self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for file in (self._older, self._file):
            if file is not None:
                file.close()

    def new(self) -> Iterator[Occurrence]:
        """What was added since the last call; lines that a killed writer left torn are skipped."""
        if self._older is not None:
            yield from self._read(self._older)
            self._older.close()
            self._older, self._partial = None, b""
        while True:
            if self._file is None:
                self._file = _open_existing(self._path)
                if self._file is None:
                    return
            yield from self._read(self._file)
            if _is_at(self._file, self._path):
                return
            yield from self._read(self._file)  # what came between the read and the rotation
            self._file.close()
            self._file, self._partial = None, b""

    def _open(self) -> tuple[BinaryIO | None, BinaryIO | None]:
        """(rotated log, current log), with no rotation between the two."""
        while True:
            current = _open_existing(self._path)
            older = _open_existing(f"{self._path}.1")
            if current is None or _is_at(current, self._path):
                return older, current
            current.close()
            if older is not None:
                older.close()

    def _read(self, file: BinaryIO) -> Iterator[Occurrence]:
        while block := file.read(_BLOCK):
            *lines, self._partial = (self._partial + block).split(b"\n")
            for line in lines:
                occurrence = _decode(line)
                if occurrence is not None:
                    yield occurrence


def _open_existing(path: str) -> BinaryIO | None:
    try:
        return open(path, "rb")  # the reader closes it
    except FileNotFoundError:
        return None


def _is_at(file: BinaryIO, path: str) -> bool:
    """Whether the file is still the one at `path`."""
    try:
        return os.stat(path).st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _decode(line: bytes) -> Occurrence | None:
    try:
        at, type, action, id, attributes = loads(line.decode())
        pairs = tuple((str(name), str(value)) for name, value in attributes.items())
        return Occurrence(int(at), str(type), str(action), str(id), pairs)
    except (ValueError, TypeError, AttributeError):
        return None
