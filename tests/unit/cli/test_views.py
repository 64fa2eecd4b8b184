# SPDX-License-Identifier: Apache-2.0
"""The three views of one event stream."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import get_args

import pytest

from lamina.cli.ui.jsonl import JsonView, event_to_json
from lamina.cli.ui.lines import LogLines
from lamina.cli.ui.plain import PlainView
from lamina.cli.ui.tty import LiveView
from lamina.events import (
    BuildDone,
    Diagnostic,
    Event,
    Outcome,
    Progress,
    Severity,
    VertexDone,
    VertexLog,
    VertexPlanned,
    VertexStarted,
)
from lamina.spec.digest import Digest
from lamina.spec.span import SourceText, Span
from lamina.start.record import fields

DOCUMENT = Path(__file__).parents[3] / "docs/events.md"

ONE, TWO, THREE = (Digest.of(name) for name in (b"one", b"two", b"three"))
SOURCE = SourceText("Dockerfile", ("FROM x", "RUN false", "RUN late"))


def failing_build() -> list[Event]:
    return [
        VertexPlanned(ONE, "[1/3] FROM x", "", 1, 3, 10.0),
        VertexPlanned(TWO, "[2/3] RUN false", "", 2, 3, 10.0),
        VertexPlanned(THREE, "[3/3] RUN late", "", 3, 3, 10.0),
        Diagnostic(Severity.WARNING, "SomeRule", "do not", Span(SOURCE, 2, 2)),
        VertexDone(ONE, Outcome.CACHED, 10.0),
        VertexStarted(TWO, 10.5),
        VertexLog(TWO, 1, b"hel", 11.0),
        VertexLog(TWO, 1, b"lo\nwarn\x1b[31ming\r\nrest", 11.0),
        VertexDone(TWO, Outcome.FAILED, 12.0, "exit code: 1"),
        VertexDone(THREE, Outcome.CANCELLED, 12.0),
    ]


def test_plain_view_numbers_steps_and_repeats_the_failing_log() -> None:
    out = io.StringIO()
    view = PlainView(out)
    for event in failing_build():
        view(event)
    view.close()
    assert out.getvalue() == (
        "WARNING: SomeRule: do not (Dockerfile:2)\n"
        "   1 |     FROM x\n"
        "   2 | >>> RUN false\n"
        "   3 |     RUN late\n"
        "#1 [1/3] FROM x\n#1 CACHED\n\n"
        "#2 [2/3] RUN false\n"
        "#2 0.500 hello\n"
        "#2 0.500 warn\\x1b[31ming\n"
        "#2 rest\n"
        "#2 ERROR: exit code: 1\n\n"
        "#3 [3/3] RUN late\n#3 CANCELED\n\n"
        "------\n > [2/3] RUN false:\nhello\nwarn\\x1b[31ming\nrest\n------\n"
    )


def test_json_view_writes_one_object_a_line_with_every_field() -> None:
    out = io.StringIO()
    view = JsonView(out)
    for event in failing_build():
        view(event)
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [row["event"] for row in rows] == [type(event).__name__ for event in failing_build()]
    assert rows[3]["span"] == {
        "file": "Dockerfile", "start": 2, "end": 2, "column": -1, "width": 0,
    }  # fmt: skip
    assert rows[8] == {
        "event": "VertexDone",
        "vertex": str(TWO),
        "outcome": "failed",
        "at": 12.0,
        "error": "exit code: 1",
    }


def test_json_keeps_bytes_that_are_not_utf8() -> None:
    row = event_to_json(VertexLog(ONE, 2, b"\xffa", 1.0))
    assert row["text"] == "\\xffa"
    assert row["base64"] == "/2E="


def live(events: list[Event], *, now: float = 13.0) -> tuple[LiveView, io.StringIO]:
    out = io.StringIO()
    view = LiveView(out, clock=lambda: now, width=60)
    for event in events:
        view(event)
    return view, out


def test_live_view_shows_what_runs_with_its_last_lines() -> None:
    view, _ = live(failing_build()[:8], now=13.0)
    try:
        lines = view.frame()
    finally:
        view.close()
    assert lines[0] == "[+] Building 0.0s (1/3)"
    assert lines[1].startswith(" => CACHED [1/3] FROM x")
    assert lines[2].endswith(" 2.5s")
    assert " => => # hello" in lines
    assert all(len(line) <= 60 for line in lines)


def test_live_view_ends_with_the_failing_log_and_does_not_say_finished() -> None:
    view, out = live(failing_build())
    view.close()
    text = out.getvalue()
    assert "FINISHED" not in text
    assert " => ERROR [2/3] RUN false" in text
    assert text.endswith(" > [2/3] RUN false:\nhello\nwarn\\x1b[31ming\nrest\n------\n")


def test_live_view_of_a_whole_build_names_the_image() -> None:
    events: list[Event] = [
        VertexPlanned(ONE, "[1/1] FROM x", "", 1, 1, 10.0),
        VertexDone(ONE, Outcome.CACHED, 10.0),
        Progress("a", "exporting", 5, 10, 10.0),
        Progress("a", "exporting", 10, 10, 10.0, done=True),
        BuildDone(TWO, ONE, ("docker.io/library/app:latest",), 10.0),
    ]
    view, out = live(events)
    view.close()
    assert "(1/1) FINISHED" in out.getvalue()
    assert f"image {ONE}"[:40] in out.getvalue()
    assert "naming to docker.io/library/app:latest" in out.getvalue()


def test_line_ends_split_over_chunks_count_once() -> None:
    lines = LogLines()
    found = []
    for byte in b"one\r\ntwo\rthree\nfour":
        found += lines.feed(ONE, 1, bytes([byte]))
    assert [*found, *lines.finish(ONE)] == ["one", "two", "three", "four"]


def test_endless_line_does_not_fill_memory() -> None:
    lines = LogLines()
    shown = sum(len(lines.feed(ONE, 1, b"x" * 10_000)) for _ in range(100))
    assert shown > 0
    assert sum(map(len, lines._partial.values())) <= 64 * 1024


def test_view_of_a_build_that_is_over_at_once_imports_no_rich() -> None:
    import subprocess
    import sys

    code = (
        "import io, sys; from lamina.cli.ui.tty import LiveView; "
        "view = LiveView(io.StringIO(), clock=lambda: 0.0, width=80); view.close(); "
        "sys.exit('rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_views_say_why_a_step_runs_if_asked() -> None:
    from lamina.events import VertexExplained

    planned = VertexPlanned(ONE, "[1/1] RUN x", "", 1, 1, 1.0)
    why = VertexExplained(ONE, "arg", "V", "1", "2", 0, "", "ARG V changed: 1 -> 2")
    for explain in (True, False):
        plain, live = io.StringIO(), io.StringIO()
        views = (
            PlainView(plain, explain=explain),
            LiveView(live, clock=lambda: 2.0, width=80, explain=explain),
        )
        for view in views:
            for event in (planned, VertexStarted(ONE, 1.0), why, VertexDone(ONE, Outcome.RAN, 2.0)):
                view(event)
            view.close()
        assert ("why: ARG V changed: 1 -> 2" in plain.getvalue()) is explain
        assert ("why: ARG V changed: 1 -> 2" in live.getvalue()) is explain
    assert event_to_json(why)["cause"] == "arg"


@pytest.mark.parametrize("event", get_args(Event), ids=lambda event: event.__name__)
def test_documentation_has_a_row_with_every_field(event: type[Event]) -> None:
    rows = [
        row for row in DOCUMENT.read_text().splitlines() if row.startswith(f"| `{event.__name__}`")
    ]
    assert len(rows) == 1
    told = re.findall(r"\w+", rows[0])
    renamed = {"data": "text"} if event is VertexLog else {}
    assert {renamed.get(field, field) for field in fields(event)} <= set(told)
