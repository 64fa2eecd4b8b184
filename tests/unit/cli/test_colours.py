# SPDX-License-Identifier: Apache-2.0
"""The live view is coloured as BuildKit's, on terminals and where it is wanted."""

from __future__ import annotations

import io

import pytest

from lamina.cli.context import Context
from lamina.cli.ui.colours import NO_COLOURS, Palette, palette
from lamina.cli.ui.tty import LiveView
from lamina.cli.view import make_view
from lamina.errors import Kind, LaminaError
from lamina.events import (
    Diagnostic,
    Event,
    Outcome,
    Phase,
    Progress,
    Severity,
    VertexDone,
    VertexLog,
    VertexPlanned,
    VertexStarted,
)
from lamina.spec.digest import Digest

NAMES = ("ran", "cached", "failed", "cancelled", "running")
STEPS = {name: Digest.of(name.encode()) for name in NAMES}
BLUE, YELLOW, RED, FAINT = "\x1b[34m", "\x1b[33m", "\x1b[31m", "\x1b[2m"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def build() -> list[Event]:
    events: list[Event] = [
        VertexPlanned(step, f"RUN {name}", "", number, len(STEPS), 1.0)
        for number, (name, step) in enumerate(STEPS.items())
    ]
    events += [VertexStarted(STEPS[name], 1.0) for name in NAMES if name != "cached"]
    events += [
        VertexDone(STEPS["ran"], Outcome.RAN, 2.0),
        VertexDone(STEPS["cached"], Outcome.CACHED, 2.0),
        VertexDone(STEPS["failed"], Outcome.FAILED, 2.0, "exit code: 1"),
        VertexDone(STEPS["cancelled"], Outcome.CANCELLED, 2.0),
        VertexLog(STEPS["running"], 1, b"\x1b[35mhello\n", 2.0),
        Progress("a", "exporting", 10, 10, 2.0, done=True),
        Progress("b", "writing", 1, 10, 2.0),
        Progress("c", "pulling layer", 1, 1, 2.0, True, None, STEPS["ran"], Phase.PULLING),
        Diagnostic(Severity.WARNING, "Rule", "watch out"),
        Diagnostic(Severity.ERROR, "Rule", "oh no"),
    ]
    return events


def view_of(env: dict[str, str], out: io.StringIO, progress: str = "tty") -> LiveView:
    context = Context(
        env={"LAMINA_ROOT": "/nowhere", **env},
        cwd="/",
        uid=0,
        stdin=io.StringIO(),
        stdout=io.StringIO(),
        stderr=out,
        clock=lambda: 3.0,
    )
    view = make_view(progress, context, quiet=False)
    assert isinstance(view, LiveView)
    for event in build():
        view(event)
    return view


def line_with(text: str, lines: list[str]) -> str:
    (found,) = [line for line in lines if text in line]
    return found


def test_lines_have_buildkits_colours() -> None:
    out = Terminal()
    view = view_of({}, out, "auto")
    frame = view.frame()
    view.close()

    written = out.getvalue().splitlines()
    for text, colour in (
        ("RUN ran", BLUE),
        ("CACHED RUN cached", BLUE),
        ("ERROR RUN failed", RED),
        ("CANCELED RUN cancelled", YELLOW),
        ("exporting", BLUE),
    ):
        line = line_with(f" => {text}", frame)
        assert line.startswith(colour)
        assert line.endswith("\x1b[0m")
        assert line_with(f" => {text}", written) == line
    assert line_with(" => Pulled 1/1", written).startswith(BLUE)
    for text in ("[+] Building", "RUN running", "writing"):
        assert "\x1b" not in line_with(text, frame)
    # what a step wrote stays harmless, and is faint while it runs
    assert line_with("hello", frame) == f"{FAINT} => => # \\x1b[35mhello\x1b[0m"
    assert line_with("watch out", written) == f"{YELLOW}WARNING: Rule: watch out\x1b[0m"
    assert line_with("oh no", written) == f"{RED}ERROR: Rule: oh no\x1b[0m"


def test_colours_do_not_change_what_is_written() -> None:
    def plain(env: dict[str, str]) -> list[str]:
        out = Terminal()
        view = view_of(env, out)
        lines = [*view.frame(), "--"]
        view.close()
        text = "\n".join([*lines, out.getvalue()])
        for code in (BLUE, YELLOW, RED, FAINT, "\x1b[0m"):
            text = text.replace(code, "")
        return text.splitlines()

    assert plain({}) == plain({"NO_COLOR": "1"})


@pytest.mark.parametrize(
    ("env", "out"),
    [({"NO_COLOR": "1"}, Terminal()), ({"TERM": "dumb"}, Terminal()), ({}, io.StringIO())],
    ids=["NO_COLOR", "dumb terminal", "no terminal"],
)
def test_no_colours_where_they_are_not_wanted(env: dict[str, str], out: io.StringIO) -> None:
    view = view_of(env, out)
    frame = view.frame()
    view.close()
    assert "\x1b" not in "".join(frame) + out.getvalue()


def test_empty_no_color_is_none() -> None:
    assert palette({"NO_COLOR": ""}, is_terminal=True).run == "34"


def test_buildkit_colors_are_names_and_rgb() -> None:
    wanted = "run=LIGHT-green:warning=default:error=255,0,7:cancel=white"
    assert palette({"BUILDKIT_COLORS": wanted}, is_terminal=True) == Palette(
        run="92", warning="39", error="38;2;255;0;7", cancel="37", output="2"
    )
    assert palette({"BUILDKIT_COLORS": wanted, "NO_COLOR": "1"}, is_terminal=True) == NO_COLOURS
    assert palette({"BUILDKIT_COLORS": wanted}, is_terminal=False) == NO_COLOURS


@pytest.mark.parametrize(
    "text", ["run", "run=", "run=pink", "error=1,2", "error=1,2,256", "error=1,2,x", "ran=blue"]
)
def test_malformed_buildkit_colors_are_refused(text: str) -> None:
    with pytest.raises(LaminaError, match="invalid BUILDKIT_COLORS") as caught:
        palette({"BUILDKIT_COLORS": f"warning=red:{text}"}, is_terminal=True)
    assert caught.value.kind is Kind.USAGE
    assert "run=blue" in caught.value.hint


def test_frames_that_rich_draws_are_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    view = view_of({}, out)
    view._timer.cancel()
    view._go_live()
    assert view._live is not None
    view._live.refresh()
    drawn = out.getvalue()
    view.close()

    assert f"{BLUE} => CACHED RUN cached" in drawn
    assert f"{RED} => ERROR RUN failed" in drawn
    assert f"{FAINT} => => # \\x1b[35mhello" in drawn
