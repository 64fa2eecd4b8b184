# SPDX-License-Identifier: Apache-2.0
r"""The container log: Docker's json-file format, written by the monitor, read by anyone.

One JSON object a line: `{"log":"text\n","stream":"stdout","time":"2026-01-02T03:04:05.678901234Z"}`.
`log` ends in a newline unless the line was longer than 16 KiB (then it goes on in the next object)
or the stream ended. Bytes that are not UTF-8 become U+FFFD, as Docker's do. Rotated files are
`container.log.1` (newest) to `container.log.N`.
"""

from __future__ import annotations

import os
import time

from lamina.errors import Kind, LaminaError
from lamina.start.jsontext import dumps, loads
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO, Self

MAX_LINE = 16 * 1024  # bytes of one entry; Docker's defaultBufSize in daemon/logger/copier.go
_STREAMS = {1: "stdout", 2: "stderr"}
_NUMBERS = {"stdout": 1, "stderr": 2}
_BLOCK = 64 * 1024
NANOSECONDS = 1_000_000_000


class Entry(Record):
    """One line of output: `stream` 1 or 2, `at` in POSIX nanoseconds."""

    stream: int
    data: bytes
    at: int


class LogWriter:
    """Appends to a log file; `max_size` in bytes (0: no limit), `max_file` files are kept.

    A full disk never stops the container: lines are lost, and `lost` counts them.
    """

    def __init__(self, path: str, *, max_size: int = 0, max_file: int = 1) -> None:
        self.path = path
        self.max_size = max_size
        self.max_file = max_file
        self.lost = 0
        self._partial: dict[int, bytes] = {1: b"", 2: b""}
        self._file = self._open()

    def write(self, stream: int, data: bytes, *, now: int) -> bool:
        """Add output; complete lines reach the file before it returns. True if any did.

        `now` is POSIX nanoseconds.
        """
        pending = self._partial[stream] + data
        lines: list[bytes] = []
        while pending:
            end = pending.find(b"\n", 0, MAX_LINE)
            if end < 0 and len(pending) < MAX_LINE:
                break
            cut = end + 1 if end >= 0 else _character_boundary(pending, MAX_LINE)
            lines.append(_encode(stream, pending[:cut], now))
            pending = pending[cut:]
        self._partial[stream] = pending
        self._append(lines)
        return bool(lines)

    def close(self, *, now: int) -> None:
        """Write what did not end in a newline, and close the file. Idempotent."""
        if self._file < 0:
            return
        rest = [_encode(n, self._partial[n], now) for n in (1, 2) if self._partial[n]]
        self._append(rest)
        os.close(self._file)
        self._file = -1

    def _append(self, lines: list[bytes]) -> None:
        """Write the lines, rotating between them whenever the file has reached its size."""
        batch, size = b"", self._size
        for line in lines:
            if self.max_size and size >= self.max_size:
                self._flush(batch)
                self._rotate()
                batch, size = b"", 0
            batch += line
            size += len(line)
        self._flush(batch)

    def _flush(self, data: bytes) -> None:
        try:
            while data:
                written = os.write(self._file, data)
                self._size += written
                data = data[written:]
        except OSError:  # disk full, or a device that fails: the container must go on
            self.lost += data.count(b"\n")

    def _rotate(self) -> None:
        os.close(self._file)
        if self.max_file <= 1:
            os.unlink(self.path)
        else:
            for number in range(self.max_file - 1, 0, -1):
                older = f"{self.path}.{number - 1}" if number > 1 else self.path
                if os.path.exists(older):
                    os.rename(older, f"{self.path}.{number}")
        self._file = self._open()

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.path, flags, 0o640)
        self._size = os.fstat(descriptor).st_size
        if self._size and os.pread(descriptor, 1, self._size - 1) != b"\n":
            os.write(descriptor, b"\n")  # a monitor was killed in the middle of a line
        return descriptor


class LogReader:
    """Reads a log that may grow and rotate while it is read. A context manager."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._partial = b""

    def history(self, *, tail: int | None = None) -> Iterator[Entry]:
        """The entries so far, oldest first; with `tail`, the last that many. Call once, first."""
        if tail is None:
            for path in self._rotated():
                yield from _entries_of(path)
        else:
            for line in self._last_lines(tail):
                entry = _decode(line)
                if entry is not None:
                    yield entry
        yield from self.new()

    def new(self) -> Iterator[Entry]:
        """The entries that were added since the last call."""
        while True:
            if self._file is None:
                self._file = _open_existing(self.path)
                if self._file is None:
                    return
            yield from self._read(self._file)
            if self._is_current(self._file):
                return
            yield from self._read(self._file)  # what came between the read and the rotation
            self._file.close()
            self._file, self._partial = None, b""

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _read(self, file: BinaryIO) -> Iterator[Entry]:
        while block := file.read(_BLOCK):
            *lines, self._partial = (self._partial + block).split(b"\n")
            for line in lines:
                entry = _decode(line)
                if entry is not None:
                    yield entry

    def _is_current(self, file: BinaryIO) -> bool:
        try:
            return os.stat(self.path).st_ino == os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            return not os.path.isdir(os.path.dirname(self.path))  # the container was removed

    def _rotated(self) -> list[str]:
        """The rotated files, oldest first."""
        found: list[str] = []
        while os.path.exists(f"{self.path}.{len(found) + 1}"):
            found.append(f"{self.path}.{len(found) + 1}")
        return found[::-1]

    def _last_lines(self, count: int) -> list[bytes]:
        """The last `count` lines, oldest first; leaves the current file open at its end."""
        current = _open_existing(self.path)
        lines: list[bytes] = []
        if current is not None:
            lines, end = _tail(current, count)
            current.seek(end)
            self._file = current
        for path in reversed(self._rotated()):
            if len(lines) >= count:
                break
            older = _open_existing(path)
            if older is not None:
                with older:
                    lines = _tail(older, count - len(lines))[0] + lines
        return lines


def selected(
    entries: Iterable[Entry], *, since: int | None = None, until: int | None = None
) -> Iterator[Entry]:
    """The entries from `since` on and before `until` (POSIX nanoseconds); ends at the first later."""
    for entry in entries:
        if until is not None and entry.at > until:
            return
        if since is None or entry.at >= since:
            yield entry


def format_time(at: int) -> str:
    """POSIX nanoseconds as RFC 3339 in UTC with nine decimals, as Docker writes them."""
    seconds, rest = divmod(at, NANOSECONDS)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def parse_time(text: str) -> int:
    """POSIX nanoseconds of an RFC 3339 time, any number of decimals. Raises ValueError."""
    import calendar

    if text[10:11] not in {"T", "t", " "}:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    zone, offset = _split_zone(text[19:])
    decimals = zone[1:] if zone.startswith(".") else ""
    if zone and not decimals.isdigit():
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    moment = time.strptime(text[:10] + "T" + text[11:19], "%Y-%m-%dT%H:%M:%S")
    nanoseconds = int(decimals[:9].ljust(9, "0")) if decimals else 0
    return (calendar.timegm(moment) - offset) * NANOSECONDS + nanoseconds


def parse_moment(text: str, *, now: Callable[[], int]) -> int:
    """What `--since` and `--until` take: RFC 3339, a date, POSIX seconds, or `1h30m` ago.

    Returns POSIX nanoseconds; times without a zone are UTC. Raises LaminaError of kind USAGE.
    """
    try:
        if text.replace(".", "", 1).isdigit():
            whole, _, decimals = text.partition(".")
            return int(whole or "0") * NANOSECONDS + int(decimals[:9].ljust(9, "0") or "0")
        if text[4:5] == "-":
            return parse_time(_completed(text))
        return now() - parse_duration(text)
    except (ValueError, OverflowError) as error:
        raise LaminaError(
            f"invalid time {text!r}",
            kind=Kind.USAGE,
            hint="use 2026-01-02T15:04:05Z, POSIX seconds, or a duration such as 10m",
        ) from error


_UNITS = {"h": 3600 * NANOSECONDS, "m": 60 * NANOSECONDS, "s": NANOSECONDS, "ms": 1_000_000}
_UNITS.update({"us": 1000, "µs": 1000, "ns": 1})


def parse_duration(text: str) -> int:
    """Nanoseconds of a Go duration (`1h30m`, `1.5s`). Raises ValueError."""
    import re

    parts = re.findall(r"(\d+(?:\.\d+)?)(h|ms|m|us|µs|ns|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"not a duration: {text!r}")
    return sum(round(float(number) * _UNITS[unit]) for number, unit in parts)


def _completed(text: str) -> str:
    """`2026-01-02` and `2026-01-02T15:04` get the rest; no zone means UTC."""
    if len(text) == 10:
        return text + "T00:00:00Z"
    if len(text) == 16:
        return text + ":00Z"
    return text if text[-1] in "Zz" or text[-6:-5] in {"+", "-"} else text + "Z"


def _split_zone(text: str) -> tuple[str, int]:
    """(what stands before the zone, offset from UTC in seconds)."""
    if text[-1:] in {"Z", "z"}:
        return text[:-1], 0
    if len(text) >= 6 and text[-6] in "+-" and text[-3] == ":":
        seconds = int(text[-5:-3]) * 3600 + int(text[-2:]) * 60
        return text[:-6], seconds if text[-6] == "+" else -seconds
    raise ValueError(f"no time zone in {text!r}")


def _encode(stream: int, line: bytes, now: int) -> bytes:
    document = {
        "log": line.decode("utf-8", "replace"),
        "stream": _STREAMS[stream],
        "time": format_time(now),
    }
    return dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _decode(line: bytes) -> Entry | None:
    """The entry in a line; None for one that a killed monitor or a full disk left torn."""
    try:
        document = loads(line)
        text, stream = document["log"], _NUMBERS[document["stream"]]
        return Entry(stream, text.encode("utf-8", "surrogatepass"), parse_time(document["time"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _entries_of(path: str) -> Iterator[Entry]:
    file = _open_existing(path)
    if file is None:
        return
    with file:
        for line in file:
            entry = _decode(line)
            if entry is not None:
                yield entry


def _open_existing(path: str) -> BinaryIO | None:
    try:
        return open(path, "rb")  # the caller closes it
    except FileNotFoundError:
        return None


def _tail(file: BinaryIO, count: int) -> tuple[list[bytes], int]:
    """(the last `count` complete lines, the position after them), reading from the end."""
    position = file.seek(0, os.SEEK_END)
    data = b""
    while position > 0 and data.count(b"\n") <= count:
        step = min(_BLOCK, position)
        position -= step
        file.seek(position)
        data = file.read(step) + data
    complete = data.rfind(b"\n") + 1
    end = position + complete
    lines = data[:complete].split(b"\n")[:-1]
    return lines[max(0, len(lines) - count) :] if count else [], end


def _character_boundary(data: bytes, limit: int) -> int:
    """The largest cut up to `limit` that does not split a UTF-8 character."""
    cut = limit
    while cut > limit - 4 and cut < len(data) and data[cut] & 0xC0 == 0x80:
        cut -= 1
    return cut if cut > limit - 4 else limit
