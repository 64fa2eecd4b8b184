# SPDX-License-Identifier: Apache-2.0
"""Maps of sparse files in tar archives (GNU tar manual §Sparse Formats): parsed and checked."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Segment = tuple[int, int]  # offset and length of data, in bytes

MAX_SEGMENTS = 65_536  # a map of about 1 MiB as text
_BLOCK = 512
_MAX = (1 << 63) - 1


def _invalid(why: str) -> LaminaError:
    return LaminaError(f"invalid map of a sparse file in a tar archive: {why}", kind=Kind.INVALID)


class Extents:
    """Where in a sparse file the reader stands: in a hole, in data, or at the end.

    `stored` is the number of bytes that the archive holds for the file.
    """

    __slots__ = ("_at", "_index", "_size", "segments")

    def __init__(self, segments: list[Segment], *, size: int, stored: int) -> None:
        end = 0
        for offset, length in segments:
            if offset < end or length < 0:
                raise _invalid("the segments overlap or are out of order")
            end = offset + length
        if end > size:
            raise _invalid("a segment lies behind the end of the file")
        if sum(length for _, length in segments) != stored:
            raise _invalid("the lengths do not add up to what is stored")
        self.segments = [segment for segment in segments if segment[1]]
        self._size = size
        self._index = 0
        self._at = 0

    def hole(self) -> int:
        """Bytes of the hole here; 0 in data and at the end."""
        if self._index < len(self.segments):
            return max(self.segments[self._index][0] - self._at, 0)
        return self._size - self._at

    def data(self) -> int:
        """Bytes of data here; 0 in a hole and at the end."""
        if self._index == len(self.segments):
            return 0
        offset, length = self.segments[self._index]
        return offset + length - self._at if offset <= self._at else 0

    def pass_hole(self, length: int) -> int:
        """Move `length` bytes on, at most `hole()`; returns it."""
        self._at += length
        return length

    def pass_data(self, length: int) -> None:
        """Move `length` bytes on, at most `data()`."""
        self._at += length
        if length and not self.data():
            self._index += 1


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19 or (number := int(text)) > _MAX:
        raise _invalid("a number is missing or too large")
    return number


def _octal(field: bytes) -> int:
    if field[0] == 0x80:  # base-256
        number = int.from_bytes(field[1:], "big")
    else:
        digits = field.strip(b" \0")
        if digits.strip(b"01234567"):
            raise _invalid("a number is malformed")
        number = int(digits or b"0", 8)
    if number > _MAX:
        raise _invalid("a number is too large")
    return number


def gnu_segments(block: bytes, take: Callable[[int], bytes]) -> tuple[int, list[Segment]]:
    """The real size and the segments of an old GNU sparse member (type S).

    Four segments are in the header, more in the blocks that follow it, read with `take`.
    """
    size = _octal(block[483:495])
    segments = _gnu_table(block[386:482])
    extended = block[482]
    while extended:
        more = take(_BLOCK)
        if len(more) < _BLOCK:
            raise _invalid("the archive ends in it")
        segments += _gnu_table(more[:504])
        extended = more[504]
        if len(segments) > MAX_SEGMENTS:
            raise _invalid("too many segments")
    return size, segments


def _gnu_table(table: bytes) -> list[Segment]:
    segments = []
    for at in range(0, len(table), 24):
        if not table[at]:
            break
        segments.append((_octal(table[at : at + 12]), _octal(table[at + 12 : at + 24])))
    return segments


def pax_segments(text: bytes | None, repeated: list[tuple[bytes, bytes]]) -> list[Segment]:
    """The segments of pax sparse formats 0.1 (one record of numbers) and 0.0 (repeated records)."""
    if text is not None:
        numbers = [_decimal(part) for part in text.split(b",")]
    else:
        names = [b"GNU.sparse.offset", b"GNU.sparse.numbytes"]
        if [key for key, _ in repeated] != names * (len(repeated) // 2):
            raise _invalid("offsets and lengths do not alternate")
        numbers = [_decimal(value) for _, value in repeated]
    if len(numbers) % 2 or len(numbers) > 2 * MAX_SEGMENTS:
        raise _invalid("an odd or too large number of values")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def pax_text_map(take: Callable[[int], bytes], *, limit: int) -> tuple[list[Segment], int]:
    """The segments of pax sparse format 1.0, and how many bytes of the content the map took.

    Decimal lines in the first blocks of the content: the number of segments, then offset and
    length of each; padded to whole blocks.
    """
    used = 0
    lines: list[bytes] = []
    rest = b""
    wanted = 1
    while len(lines) < wanted:
        if used + _BLOCK > limit:
            raise _invalid("it is longer than the content")
        block = take(_BLOCK)
        if len(block) < _BLOCK:
            raise _invalid("the archive ends in it")
        used += _BLOCK
        *found, rest = (rest + block).split(b"\n")
        if len(rest) > 2 * _BLOCK:
            raise _invalid("a line is too long")
        lines += found
        if lines and wanted == 1:
            count = _decimal(lines[0])
            if count > MAX_SEGMENTS:
                raise _invalid("too many segments")
            wanted += 2 * count
    numbers = [_decimal(line) for line in lines[1:wanted]]
    return list(zip(numbers[::2], numbers[1::2], strict=True)), used
