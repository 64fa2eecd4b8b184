# SPDX-License-Identifier: Apache-2.0
"""Blobs on their way as Docker shows them, one row each, with the speed and what is left of all."""

from __future__ import annotations

from collections import deque

from lamina.events import Phase, Progress
from lamina.image.sizes import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.spec.digest import Digest

_WINDOW = 5.0  # seconds over which the speed is measured
_SAMPLE = 0.2  # seconds between what is remembered for it
_JUMP = 8 << 20  # bytes at once that were not transferred now: a resumed blob's first half
_WIDEST_BAR = 50  # characters, Docker's
_NARROWEST_BAR = 5
_MOVING = {
    Phase.PULLING: ("Downloading", "Download complete"),
    Phase.PUSHING: ("Pushing", "Pushed"),
    Phase.COPYING: ("Copying", "Copied"),
}
_PAST = {"Pulling": "Pulled", "Pushing": "Pushed", "Copying": "Copied", "": "Unpacked"}


class _Row:
    """What is known of one blob."""

    def __init__(self, first: Progress) -> None:
        self.total = first.total
        self.phase = first.phase
        self.current = 0
        self.is_moved = False
        self.unpacking: Progress | None = None

    @property
    def is_done(self) -> bool:
        if self.unpacking is not None:
            return self.unpacking.done
        return self.is_moved or self.phase is Phase.PRESENT

    @property
    def is_waiting(self) -> bool:
        return self.phase is Phase.WAITING

    def state(self) -> tuple[str, int, int | None] | str:
        """Its words, or (words, bytes through, bytes in all) while something moves."""
        if self.phase in _MOVING and not self.is_moved:
            return _MOVING[self.phase][0], self.current, self.total
        if self.unpacking is not None:
            if self.unpacking.done:
                return "Pull complete" if self.phase is Phase.PULLING else "Unpacked"
            return "Extracting", self.unpacking.current, self.unpacking.total
        if self.phase in _MOVING:
            return _MOVING[self.phase][1]
        return "Waiting" if self.is_waiting else "Already exists"


class Transfers:
    """The rows, in the order in which they were announced. Not for several threads at once."""

    def __init__(self) -> None:
        self._rows: dict[Digest, _Row] = {}
        self._samples: deque[tuple[float, int]] = deque()
        self._moved = 0  # bytes of this run
        self._begin = 0.0
        self._end = 0.0
        self._verb = ""

    def feed(self, event: Progress) -> None:
        """Take in an event that has a subject and a phase."""
        if event.subject is None:
            return
        if not self._rows:
            self._begin = event.at
        self._end = event.at
        row = self._rows.get(event.subject)
        if row is None:
            row = self._rows[event.subject] = _Row(event)
        verb = event.name.partition(" ")[0].capitalize()
        if event.phase is not Phase.UNPACKING and verb in _PAST:
            self._verb = verb
        if event.phase is Phase.UNPACKING:
            row.unpacking = event
            return
        row.phase = event.phase
        if event.phase in _MOVING:
            gained = event.current - row.current
            if gained > 0 and (row.current or gained < _JUMP):
                self._moved += gained
            row.current = event.current
            row.is_moved = event.done
            self._sample(event.at)

    def _sample(self, at: float) -> None:
        samples = self._samples
        if samples and at - samples[-1][0] < _SAMPLE:
            return
        samples.append((at, self._moved))
        while len(samples) > 2 and at - samples[0][0] > _WINDOW:
            samples.popleft()

    def speed(self, now: float) -> float:
        """Bytes a second of late; 0 if it is too early to tell."""
        if not self._samples:
            return 0.0
        at, moved = self._samples[0]
        return (self._moved - moved) / (now - at) if now - at >= _SAMPLE else 0.0

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do for any blob that was announced."""
        return all(row.is_done for row in self._rows.values())

    def summary(self, now: float, *, finished: bool = False) -> str:
        """`Pulling 3/12 120MB/500MB 55MB/s ETA 7s`; what was done and how fast when it is over."""
        moving = [row for row in self._rows.values() if row.phase is not Phase.PRESENT]
        done = sum(row.is_done for row in self._rows.values())
        parts = [f"{done}/{len(self._rows)}"]
        current = sum(row.current for row in moving)
        totals = [row.total for row in moving if row.total is not None]
        total = sum(totals) if len(totals) == len(moving) else None
        if finished:
            if current:
                parts.append(human_size(current))
            seconds = self._end - self._begin
            parts.append(f"in {seconds:.1f}s")
            if self._moved and seconds >= _SAMPLE:
                parts.append(f"({human_size(self._moved / seconds)}/s)")
            return " ".join(
                [_PAST[self._verb] if self.is_over else self._verb or "Unpacking", *parts]
            )
        is_moving = any(not row.is_moved for row in moving)
        verb = self._verb if is_moving and self._verb else "Unpacking"
        if current and total is not None:
            parts.append(f"{human_size(current)}/{human_size(total)}")
        elif current:
            parts.append(human_size(current))
        speed = self.speed(now)
        if speed > 0 and is_moving:
            parts.append(f"{human_size(speed)}/s")
            if total is not None and total > current:
                parts.append(f"ETA {_clock((total - current) / speed)}")
        return " ".join([verb, *parts])

    def lines(self, width: int, *, limit: int | None = None) -> list[str]:
        """The rows, each at most `width` wide; if more than `limit`, those that move first."""
        rows = list(self._rows.items())
        if limit is not None and len(rows) > limit:
            rank = {id(row): (row.is_waiting, row.is_done) for _, row in rows}
            kept = {id(row) for _, row in sorted(rows, key=lambda pair: rank[id(pair[1])])[:limit]}
            rows = [pair for pair in rows if id(pair[1]) in kept]
        return [_line(digest, row, width) for digest, row in rows]


def _line(digest: Digest, row: _Row, width: int) -> str:
    """Docker's `ID: State [==>   ]  12MB/40MB`; the bar goes first when there is no room."""
    name = f"{digest.short()}: "
    state = row.state()
    if isinstance(state, str):
        return f"{name}{state}"[:width]
    words, current, total = state
    amount = human_size(current)
    if not total:
        return f"{name}{words}  {amount}"[:width]
    amount = f"{amount}/{human_size(total)}"
    # 8 columns for each amount, so that the bars of all rows are of one length
    room = min(_WIDEST_BAR, width - len(name) - len("Downloading") - len(" []  ") - 17)
    if room < _NARROWEST_BAR:
        return f"{name}{words} {amount}"[:width]
    return f"{name}{words:<11} [{bar(current, total, room)}]  {amount}"[:width]


def bar(current: int, total: int, room: int) -> str:
    """`====>     ` of `room` characters."""
    filled = min(room, room * current // total)
    return "=" * (filled - 1) + ">" * (filled > 0) + " " * (room - filled)


def _clock(seconds: float) -> str:
    """`7s`, `1m05s`, `2h03m`."""
    whole = int(seconds + 0.999)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
