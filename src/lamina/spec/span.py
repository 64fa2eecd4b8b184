# SPDX-License-Identifier: Apache-2.0
"""A place in a source text, and how it is shown to a person."""

from __future__ import annotations

from lamina.start.record import Record

_MARGIN = 1  # lines of context shown before and after the span
_MAX_LINES = 12  # a longer span (a heredoc) is cut in the middle


class SourceText(Record):
    """A file the user wrote: `name` as they would type it, `lines` without line ends."""

    name: str
    lines: tuple[str, ...]


class Span(Record):
    """Lines `start`..`end` (1-based, inclusive); `column`/`width` (0-based) for a caret, if known.

    The column counts characters of line `start`.
    """

    source: SourceText
    start: int
    end: int
    column: int = -1
    width: int = 0

    def location(self) -> str:
        """`NAME:LINE`."""
        return f"{self.source.name}:{self.start}"

    def excerpt(self) -> str:
        """The lines around the span, numbered, `>>>` before those inside it, caret if known.

        Secrets of URLs are masked; a line that has one gets no caret.
        """
        from lamina.redaction import redacted

        lines = self.source.lines
        first = max(1, self.start - _MARGIN)
        last = min(len(lines), self.end + _MARGIN)
        shown: list[str] = []
        for number in range(first, last + 1):
            if last - first > _MAX_LINES and first + _MAX_LINES // 2 < number < last - 3:
                if shown[-1] != "  ...":
                    shown.append("  ...")
                continue
            inside = self.start <= number <= self.end
            line = redacted(lines[number - 1])
            shown.append(f"{number:4d} | {'>>> ' if inside else '    '}{line}")
            is_whole = line == lines[number - 1]
            if inside and number == self.start and self.column >= 0 and is_whole:
                shown.append(f"     |     {' ' * self.column}{'^' * max(1, self.width)}")
        return "\n".join(shown)
