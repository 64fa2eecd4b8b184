# SPDX-License-Identifier: Apache-2.0
"""Where an archive goes: aside and renamed when it is complete, or standard output."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    from lamina.exporter.ports import Exported


class FileExport:
    """A file that was written aside; finalising renames it into place."""

    def __init__(self, dest: str, exported: Exported) -> None:
        self._dest = dest
        self._exported = exported

    def finalize(self) -> Exported:
        """Rename it over `dest`: a reader sees the old file or the whole new one."""
        os.replace(_aside(self._dest), self._dest)
        return self._exported

    def discard(self) -> None:
        """Remove it. Idempotent."""
        if os.path.exists(_aside(self._dest)):
            os.unlink(_aside(self._dest))


class StreamExport:
    """An archive that is written to a stream when it is finalised: it cannot be taken back."""

    def __init__(
        self,
        stream: IO[bytes],
        fill: Callable[[Callable[[bytes], object]], None],
        exported: Exported,
    ) -> None:
        self._stream = stream
        self._fill = fill
        self._exported = exported

    def finalize(self) -> Exported:
        """Write it and flush the stream."""
        self._fill(self._stream.write)
        self._stream.flush()
        return self._exported

    def discard(self) -> None:
        """Nothing was written."""


def write_aside(
    dest: str, fill: Callable[[Callable[[bytes], object]], None], exported: Exported
) -> FileExport:
    """Write the file beside `dest`, flushed to disk. Nothing is left of it if that fails.

    Raises:
        OSError: the directory does not exist, the disk is full; what `fill` raises.
    """
    export = FileExport(dest, exported)
    try:
        with open(_aside(dest), "wb") as file:
            fill(file.write)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        export.discard()
        raise
    return export


def _aside(dest: str) -> str:
    return f"{dest}.lamina-partial"
