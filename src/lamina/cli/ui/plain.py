# SPDX-License-Identifier: Apache-2.0
"""`--progress=plain`: BuildKit's numbered lines, for logs and for people without a terminal."""

from __future__ import annotations

from lamina.cli.ui.escape import printable
from lamina.cli.ui.lines import LogLines
from lamina.errors import never
from lamina.events import (
    BuildDone,
    Diagnostic,
    Notice,
    Outcome,
    Phase,
    Progress,
    VertexDone,
    VertexExplained,
    VertexLog,
    VertexPlanned,
    VertexStarted,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from lamina.events import Event
    from lamina.spec.digest import Digest

_PROGRESS_EVERY = 5.0  # seconds between lines of one transfer


class PlainView:
    """Writes each event as it comes; with `explain` also why steps were not cached.

    Call `close` at the end, whatever happened.
    """

    def __init__(self, out: TextIO, *, explain: bool = False) -> None:
        self._out = out
        self._explains = explain
        self._planned: dict[Digest, VertexPlanned] = {}
        self._numbers: dict[Digest, int] = {}
        self._started: dict[Digest, float] = {}
        self._lines = LogLines()
        self._failed: Digest | None = None
        self._progress_shown: dict[str, Progress] = {}

    def __call__(self, event: Event) -> None:
        # one write a call: lines of parallel steps do not mix, and the GIL makes the dicts safe
        text = "".join(line + "\n" for line in self._lines_of(event))
        if text:
            self._out.write(text)
            self._out.flush()

    def close(self) -> None:
        """Print the last lines of the step that failed, if one did."""
        if self._failed is None:
            return
        failed, self._failed = self._failed, None  # told once, if closed twice
        name = self._planned[failed].name
        self._out.write(f"------\n > {printable(name)}:\n")
        for line in self._lines.tail(failed):
            self._out.write(line + "\n")
        self._out.write("------\n")
        self._out.flush()

    def _lines_of(self, event: Event) -> list[str]:
        match event:
            case VertexPlanned():
                self._planned[event.vertex] = event
            case VertexStarted():
                self._started[event.vertex] = event.at
            case VertexExplained():
                if self._explains:
                    head = self._head(event.vertex)
                    return [*head, f"{self._mark(event.vertex)} why: {printable(event.text)}"]
            case VertexLog():
                head = self._head(event.vertex)
                since = event.at - self._started.get(event.vertex, event.at)
                lines = self._lines.feed(event.vertex, event.stream, event.data)
                return head + [f"{self._mark(event.vertex)} {since:.3f} {line}" for line in lines]
            case VertexDone():
                return self._done(event)
            case Progress():
                return self._transfer(event)
            case Diagnostic():
                return diagnostic_lines(event)
            case Notice():
                return [printable(event.message)]
            case BuildDone():
                return done_lines(event)
            case _:
                never(event)
        return []

    def _mark(self, vertex: Digest) -> str:
        return f"#{self._numbers[vertex]}"

    def _head(self, vertex: Digest) -> list[str]:
        """`#N NAME`, when the vertex first has something to say."""
        if vertex in self._numbers:
            return []
        self._numbers[vertex] = len(self._numbers) + 1
        planned = self._planned.get(vertex)
        name = planned.name if planned is not None else str(vertex)
        return [f"{self._mark(vertex)} {printable(name)}"]

    def _done(self, event: VertexDone) -> list[str]:
        lines = self._head(event.vertex)
        mark = self._mark(event.vertex)
        lines += [f"{mark} {line}" for line in self._lines.finish(event.vertex)]
        seconds = event.at - self._started.get(event.vertex, event.at)
        match event.outcome:
            case Outcome.CACHED:
                lines.append(f"{mark} CACHED")
            case Outcome.RAN:
                lines.append(f"{mark} DONE {seconds:.1f}s")
            case Outcome.CANCELLED:
                lines.append(f"{mark} CANCELED")
            case Outcome.FAILED:
                lines.append(f"{mark} ERROR: {printable(event.error)}")
                self._failed = event.vertex
            case _:
                never(event.outcome)
        return [*lines, ""]

    def _transfer(self, event: Progress) -> list[str]:
        """A line when it begins, when it ends, and now and then between if it takes long."""
        name = printable(event.name)
        if event.phase is Phase.WAITING:
            return []
        if event.phase is Phase.PRESENT:
            return [f"{name}: already exists"]
        if event.done:
            return [f"{name} done"]
        shown = self._progress_shown.get(event.id)
        if shown is not None and event.at - shown.at < _PROGRESS_EVERY:
            return []
        self._progress_shown[event.id] = event
        return [name] if shown is None else [f"{name} {_moved(event, shown)}"]


def _moved(event: Progress, before: Progress) -> str:
    """`12MB/40MB 2.4MB/s` since the event before."""
    from lamina.image.sizes import human_size

    total = f"/{human_size(event.total)}" if event.total else ""
    speed = max(0.0, event.current - before.current) / (event.at - before.at)
    return f"{human_size(event.current)}{total} {human_size(speed)}/s"


def diagnostic_lines(event: Diagnostic) -> list[str]:
    """A build check's finding: rule, message, place."""
    place = f" ({event.span.location()})" if event.span is not None else ""
    rule = f"{event.rule}: " if event.rule else ""
    lines = [f"{event.severity.value.upper()}: {rule}{printable(event.message)}{printable(place)}"]
    if event.span is not None:
        lines += printable(event.span.excerpt(), keep_newlines=True).split("\n")
    return lines


def done_lines(event: BuildDone) -> list[str]:
    """What was built."""
    lines = [f"image {event.config}"] if event.config is not None else []
    if event.config is None and event.manifest is not None:
        lines = [f"index {event.manifest}"]  # of images for several platforms
    return lines + [f"naming to {printable(name)} done" for name in event.names]
