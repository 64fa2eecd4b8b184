# SPDX-License-Identifier: Apache-2.0
"""Log bytes in chunks of any size to whole lines, and the last lines of each vertex."""

from __future__ import annotations

from lamina.cli.ui.escape import decode, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque

    from lamina.spec.digest import Digest

TAIL_LINES = 20  # kept a vertex for the report of a failure
_MAX_LINE = 64 * 1024  # bytes held for a line without end


class LogLines:
    """Splits each stream of each vertex at line ends; a carriage return ends a line too."""

    def __init__(self) -> None:
        self._partial: dict[tuple[Digest, int], bytes] = {}
        self._tails: dict[Digest, deque[str]] = {}

    def feed(self, vertex: Digest, stream: int, data: bytes) -> list[str]:
        r"""The lines that `data` completes, printable; `\r\n` split over two chunks is one end."""
        buffered = self._partial.pop((vertex, stream), b"") + data
        held = b"\r" if buffered.endswith(b"\r") else b""
        whole = buffered[: len(buffered) - len(held)]
        pieces = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        rest = pieces.pop() + held
        if len(rest) > _MAX_LINE:
            pieces.append(rest)
        elif rest:
            self._partial[vertex, stream] = rest
        return self._shown(vertex, pieces)

    def finish(self, vertex: Digest) -> list[str]:
        """What was left without a line end when the vertex ended."""
        keys = [key for key in self._partial if key[0] == vertex]
        return self._shown(vertex, [self._partial.pop(key).rstrip(b"\r") for key in keys])

    def tail(self, vertex: Digest) -> list[str]:
        """The vertex's last lines."""
        return list(self._tails.get(vertex, ()))

    def _shown(self, vertex: Digest, pieces: list[bytes]) -> list[str]:
        lines = [printable(decode(piece)) for piece in pieces]
        if lines:
            from collections import deque

            self._tails.setdefault(vertex, deque(maxlen=TAIL_LINES)).extend(lines)
        return lines
