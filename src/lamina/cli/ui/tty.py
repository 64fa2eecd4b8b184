# SPDX-License-Identifier: Apache-2.0
"""`--progress=tty`: a live view in BuildKit's manner.

Steps with their times, cached marks, the last lines of what runs. `rich` is imported only if the
build lasts longer than a blink, so that a fully cached one stays fast. When the build ends the
view is printed once more in full, above what comes next.
"""

from __future__ import annotations

import threading

from lamina.cli.ui.colours import NO_COLOURS, painted
from lamina.cli.ui.escape import printable
from lamina.cli.ui.lines import LogLines
from lamina.cli.ui.plain import diagnostic_lines, done_lines
from lamina.cli.ui.transfers import Transfers
from lamina.errors import never
from lamina.events import (
    BuildDone,
    Diagnostic,
    Notice,
    Outcome,
    Progress,
    Severity,
    VertexDone,
    VertexExplained,
    VertexLog,
    VertexPlanned,
    VertexStarted,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from rich.live import Live

    from lamina.cli.ui.colours import Palette
    from lamina.events import Event
    from lamina.spec.digest import Digest

_PATIENCE = 0.15  # seconds before the live view starts
_RUNNING_LINES = 6  # last log lines shown under a running step


class LiveView:
    """Keeps the state of the build and draws it. Call `close` at the end, whatever happened."""

    def __init__(
        self,
        out: TextIO,
        *,
        clock: Callable[[], float],
        width: int,
        explain: bool = False,
        builds: bool = True,
        colours: Palette = NO_COLOURS,
    ) -> None:
        """`builds` False: nothing but transfers is shown, as by `pull` and `push`."""
        self._out = out
        self._explains = explain
        self._why: dict[Digest, str] = {}
        self._clock = clock
        self._width = max(40, width) if builds else max(20, width)
        self._builds = builds
        self._colours = colours
        self._lock = threading.RLock()
        self._lines = LogLines()
        self._planned: dict[Digest, VertexPlanned] = {}
        self._started: dict[Digest, float] = {}
        self._done: dict[Digest, VertexDone] = {}
        self._exports: dict[str, Progress] = {}
        self._transfers: Transfers | None = None
        self._notes: list[str] = []
        self._closed = False
        self._result: list[str] = []
        self._begin = clock()
        self._live: Live | None = None
        self._timer = threading.Timer(_PATIENCE, self._go_live)
        self._timer.daemon = True
        self._timer.start()

    def __call__(self, event: Event) -> None:
        with self._lock:
            match event:
                case VertexPlanned():
                    self._planned[event.vertex] = event
                case VertexStarted():
                    self._started.setdefault(event.vertex, event.at)
                case VertexExplained():
                    self._why[event.vertex] = printable(event.text)
                case VertexDone():
                    self._lines.finish(event.vertex)
                    self._done[event.vertex] = event
                case VertexLog():
                    self._lines.feed(event.vertex, event.stream, event.data)
                case Progress() if event.subject is not None:
                    self._feed(event)
                case Progress():
                    self._exports[event.id] = event
                case Diagnostic():
                    self._notes += self._diagnostic(event)
                case Notice():
                    self._notes.append(printable(event.message))
                case BuildDone():
                    self._result = done_lines(event)
                case _:
                    never(event)

    def close(self) -> None:
        """Stop the live view and print the final state, the log of a failed step last."""
        self._timer.cancel()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            live, self._live = self._live, None
        if live is not None:
            live.stop()
        final = [*self.frame(finished=True), *self._notes, *self._failure()]
        self._out.write("".join(f"{line}\n" for line in final))
        self._out.flush()

    def frame(self, *, finished: bool = False, height: int | None = None) -> list[str]:
        """The lines of the view as it stands; transfers alone fit into `height` lines."""
        with self._lock:
            now = self._clock()
            if not self._builds:
                return self._transfer_frame(now, finished=finished, height=height)
            total = len(self._planned)
            state = " FINISHED" if finished and self._succeeded() else ""
            lines = [f"[+] Building {now - self._begin:.1f}s ({len(self._done)}/{total}){state}"]
            for vertex, planned in self._planned.items():
                lines += self._vertex_lines(vertex, planned, now, finished=finished)
            if self._transfers is not None:
                line = self._line(self._transfers.summary(now, finished=finished), "")
                lines.append(painted(line, self._colours.run if self._transfers.is_over else ""))
                lines += [
                    f" => => {line}" for line in self._transfers.lines(self._width - len(" => => "))
                ]
            for export in self._exports.values():
                line = self._line(export.name, _amount(export))
                lines.append(painted(line, self._colours.run if export.done else ""))
            lines += [painted(self._line(text, ""), self._colours.run) for text in self._result]
            return lines

    def _feed(self, event: Progress) -> None:
        if self._transfers is None:
            self._transfers = Transfers()
        self._transfers.feed(event)

    def _transfer_frame(self, now: float, *, finished: bool, height: int | None) -> list[str]:
        if self._transfers is None:
            return []
        head = f"[+] {self._transfers.summary(now, finished=finished)}"[: self._width]
        limit = height - 1 if height is not None else None
        return [head, *self._transfers.lines(self._width, limit=limit)]

    def _go_live(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(file=self._out, width=self._width)

        def draw() -> Text:
            height = max(5, console.size.height - 2)
            lines = self.frame(height=height)
            if len(lines) > height:
                lines = [lines[0], *lines[len(lines) - height + 1 :]]
            return Text.from_ansi("\n".join(lines), no_wrap=True, overflow="crop")

        with self._lock:
            self._live = Live(
                get_renderable=draw, console=console, refresh_per_second=8, transient=True
            )
            self._live.start()

    def _vertex_lines(
        self, vertex: Digest, planned: VertexPlanned, now: float, *, finished: bool
    ) -> list[str]:
        done = self._done.get(vertex)
        begin = self._started.get(vertex)
        name = printable(planned.name)
        if done is not None:
            mark, colour = {
                Outcome.CACHED: ("CACHED ", self._colours.run),
                Outcome.FAILED: ("ERROR ", self._colours.error),
                Outcome.CANCELLED: ("CANCELED ", self._colours.cancel),
                Outcome.RAN: ("", self._colours.run),
            }[done.outcome]
            seconds = done.at - (begin if begin is not None else done.at)
            line = painted(self._line(mark + name, f"{seconds:.1f}s"), colour)
            return [line, *self._reason(vertex)]
        if begin is None:
            return []
        lines = [self._line(name, f"{now - begin:.1f}s"), *self._reason(vertex)]
        if not finished:
            lines += [
                painted(f" => => # {line}"[: self._width], self._colours.output)
                for line in self._lines.tail(vertex)[-_RUNNING_LINES:]
            ]
        return lines

    def _reason(self, vertex: Digest) -> list[str]:
        """Why the step was not cached, if that was asked for."""
        text = self._why.get(vertex, "") if self._explains else ""
        return [f" => => why: {text}"] if text else []

    def _diagnostic(self, event: Diagnostic) -> list[str]:
        is_error = event.severity is Severity.ERROR
        first, *rest = diagnostic_lines(event)
        colour = self._colours.error if is_error else self._colours.warning
        return [painted(first, colour), *rest]

    def _line(self, name: str, right: str) -> str:
        left = f" => {name}"
        room = self._width - len(right) - 1
        if len(left) > room:
            left = left[: room - 3] + "..."
        return f"{left:<{room}} {right}"

    def _succeeded(self) -> bool:
        return all(d.outcome in {Outcome.RAN, Outcome.CACHED} for d in self._done.values())

    def _failed(self) -> list[Digest]:
        return [v for v, done in self._done.items() if done.outcome is Outcome.FAILED]

    def _failure(self) -> list[str]:
        lines: list[str] = []
        for vertex in self._failed():
            lines += ["------", f" > {printable(self._planned[vertex].name)}:"]
            lines += [*self._lines.tail(vertex), "------"]
        return lines


def _amount(transfer: Progress) -> str:
    if transfer.done:
        return "done"
    if transfer.total:
        return f"{100 * transfer.current // transfer.total}%"
    return f"{transfer.current / 1e6:.1f}MB"
