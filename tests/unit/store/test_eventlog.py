# SPDX-License-Identifier: Apache-2.0
"""The event log: order, bound, torn lines, and readers beside writers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lamina.store import eventlog
from lamina.store.eventlog import note
from lamina.store.eventreader import EventReader, Occurrence


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path)


def noted(root: str, *, from_end: bool = False) -> list[Occurrence]:
    with EventReader(root, from_end=from_end) as reader:
        return list(reader.new())


def test_a_reader_has_what_was_noted(root: str) -> None:
    note(root, "volume", "create", "data", {"driver": "local"}, clock=lambda: 7)
    assert noted(root) == [Occurrence(7, "volume", "create", "data", (("driver", "local"),))]


def test_there_is_nothing_before_the_first_event(root: str) -> None:
    with EventReader(root, from_end=True) as reader:
        assert list(reader.new()) == []
        note(root, "image", "tag", "sha256:1", {})
        assert [each.action for each in reader.new()] == ["tag"]


def test_a_reader_from_the_end_hears_only_of_what_comes(root: str) -> None:
    note(root, "image", "tag", "old", {})
    with EventReader(root, from_end=True) as reader:
        note(root, "image", "tag", "new", {})
        assert [each.id for each in reader.new()] == ["new"]
        assert list(reader.new()) == []


def test_the_log_is_bounded_and_a_reader_goes_over_rotations(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventlog, "LIMIT", 1000)
    with EventReader(root, from_end=False) as reader:
        seen = []
        for number in range(200):
            note(root, "image", "tag", str(number), {})
            seen += [int(each.id) for each in reader.new()]
    assert seen == list(range(200))
    sizes = [os.path.getsize(Path(root, name)) for name in os.listdir(root)]
    assert len(sizes) == 2
    assert max(sizes) < 1100
    kept = [int(each.id) for each in noted(root)]
    assert kept == list(range(kept[0], 200))
    assert len(kept) > 20


def test_what_came_between_a_look_and_the_rotation_is_read(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eventlog, "LIMIT", 300)
    note(root, "image", "tag", "0", {})
    with EventReader(root, from_end=False) as reader:
        for number in range(1, 8):
            note(root, "image", "tag", str(number), {})
        assert os.path.exists(f"{root}/events.log.1")
        assert [each.id for each in reader.new()] == [str(number) for number in range(8)]


def test_a_torn_line_costs_only_itself(root: str) -> None:
    note(root, "image", "tag", "before", {})
    with open(f"{root}/events.log", "ab") as log:
        log.write(b'[12,"image","ta')
    note(root, "image", "tag", "after", {})
    assert [each.id for each in noted(root)] == ["before", "after"]


@pytest.mark.parametrize(
    "line",
    [b"\n", b"[]\n", b"7\n", b'{"a":1}\n', b'[1,"a","b","c",[]]\n', b"\xff\xfe\n", b"nul\0\n"],
)
def test_lines_that_are_no_events_are_skipped(root: str, line: bytes) -> None:
    Path(root, "events.log").write_bytes(line)
    note(root, "image", "tag", "after", {})
    assert [each.id for each in noted(root)] == ["after"]


def test_attributes_of_any_size_leave_a_line_of_a_bounded_one(root: str) -> None:
    note(root, "image", "tag", "huge", {"label": "x" * (1 << 20)})
    (occurrence,) = noted(root)
    assert (occurrence.id, occurrence.attributes) == ("huge", ())
    assert os.path.getsize(f"{root}/events.log") < eventlog.MAX_LINE


def test_a_store_that_is_gone_or_full_fails_nobody(root: str) -> None:
    note(f"{root}/gone", "image", "tag", "x", {})
    os.symlink("/dev/full", f"{root}/events.log")
    note(root, "image", "tag", "x", {})
    assert os.listdir(root) == ["events.log"]


# one rotation on the way: however slow the reader is, nothing is gone before it comes
WRITER = (
    "import sys; from lamina.store import eventlog; eventlog.LIMIT = 40000\n"
    "for number in range(int(sys.argv[3])):\n"
    "    eventlog.note(sys.argv[1], 'image', 'tag', f'{sys.argv[2]} {number}', {})\n"
)


def test_processes_that_write_at_once_lose_nothing_and_keep_the_order_of_time(root: str) -> None:
    with EventReader(root, from_end=False) as reader:
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, root, str(name), "300"])
            for name in range(4)
        ]
        found: list[Occurrence] = []
        while any(writer.poll() is None for writer in writers):
            found += reader.new()
        found += reader.new()
    assert [writer.wait() for writer in writers] == [0] * 4
    assert os.path.exists(f"{root}/events.log.1")
    assert len(found) == 4 * 300
    assert [each.at for each in found] == sorted(each.at for each in found)
    for name in range(4):
        own = [int(each.id.split()[1]) for each in found if each.id.startswith(f"{name} ")]
        assert own == list(range(300))
