# SPDX-License-Identifier: Apache-2.0
"""The log file: Docker's json-file format, rotation, tails, torn lines, times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lamina.container.logs import (
    MAX_LINE,
    NANOSECONDS,
    Entry,
    LogReader,
    LogWriter,
    format_time,
    parse_duration,
    parse_moment,
    parse_time,
    selected,
)
from lamina.errors import LaminaError

AT = 1_767_366_245 * NANOSECONDS + 123_456_789


def read(path: Path, *, tail: int | None = None) -> list[Entry]:
    with LogReader(str(path)) as reader:
        return list(reader.history(tail=tail))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "container.log"


def test_a_line_is_one_object_in_dockers_form(path: Path) -> None:
    writer = LogWriter(str(path))
    writer.write(2, "é\n".encode(), now=AT)
    writer.close(now=AT)
    assert json.loads(path.read_bytes()) == {
        "log": "é\n",
        "stream": "stderr",
        "time": "2026-01-02T15:04:05.123456789Z",
    }


def test_pieces_are_joined_and_the_rest_is_written_at_close(path: Path) -> None:
    writer = LogWriter(str(path))
    assert not writer.write(1, b"a", now=AT)
    assert not writer.write(2, b"other", now=AT)
    assert writer.write(1, b"b\nc", now=AT)
    assert [e.data for e in read(path)] == [b"ab\n"]
    writer.close(now=AT)
    writer.close(now=AT)
    assert [(e.stream, e.data) for e in read(path)] == [(1, b"ab\n"), (1, b"c"), (2, b"other")]


def test_long_line_is_cut_without_splitting_a_character(path: Path) -> None:
    writer = LogWriter(str(path))
    text = ("x" + "é" * MAX_LINE + "\n").encode()
    writer.write(1, text, now=AT)
    entries = read(path)
    assert b"".join(e.data for e in entries) == text
    assert len(entries) > 1
    assert all(len(e.data) <= MAX_LINE for e in entries)
    writer.close(now=AT)


def test_bytes_that_are_not_text_become_replacement_characters(path: Path) -> None:
    writer = LogWriter(str(path))
    writer.write(1, b"\xff\n", now=AT)
    writer.close(now=AT)
    assert read(path)[0].data == "\ufffd\n".encode()


def test_torn_line_of_a_killed_writer_is_skipped_and_ended(path: Path) -> None:
    path.write_bytes(b'{"log":"half')
    writer = LogWriter(str(path))
    writer.write(1, b"whole\n", now=AT)
    writer.close(now=AT)
    assert [e.data for e in read(path)] == [b"whole\n"]


@pytest.mark.parametrize(
    "text", [b"null\n", b"{}\n", b"[1]\n", b'{"log":1,"stream":"x"}\n', b"\xff\n"]
)
def test_damaged_lines_are_skipped(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    assert read(path) == []
    assert read(path, tail=5) == []


def test_tail_gives_the_last_lines_across_rotated_files(path: Path) -> None:
    writer = LogWriter(str(path), max_size=400, max_file=4)
    for number in range(12):
        writer.write(1, b"%d\n" % number, now=AT)
    writer.close(now=AT)
    assert path.with_name("container.log.1").exists()
    assert [e.data for e in read(path, tail=7)] == [b"%d\n" % n for n in range(5, 12)]
    assert read(path, tail=0) == []


def test_rotation_keeps_the_number_of_files_that_was_asked_for(path: Path) -> None:
    writer = LogWriter(str(path), max_size=200, max_file=3)
    writer.write(1, b"".join(b"line %d\n" % n for n in range(100)), now=AT)
    writer.close(now=AT)
    names = sorted(p.name for p in path.parent.iterdir())
    assert names == ["container.log", "container.log.1", "container.log.2"]
    assert read(path)[-1].data == b"line 99\n"
    numbers = [int(e.data.split()[1]) for e in read(path)]
    assert numbers == list(range(numbers[0], 100))


def test_one_file_is_emptied_when_full(path: Path) -> None:
    writer = LogWriter(str(path), max_size=200, max_file=1)
    for number in range(50):
        writer.write(1, b"%d\n" % number, now=AT)
    writer.close(now=AT)
    assert [p.name for p in path.parent.iterdir()] == ["container.log"]
    assert path.stat().st_size < 400


def test_reader_follows_growth_and_rotation(path: Path) -> None:
    writer = LogWriter(str(path), max_size=300, max_file=3)
    writer.write(1, b"0\n", now=AT)
    with LogReader(str(path)) as reader:
        seen = [e.data for e in reader.history()]
        for number in range(1, 20):
            writer.write(1, b"%d\n" % number, now=AT)
            seen += [e.data for e in reader.new()]
        writer.close(now=AT)
    assert seen == [b"%d\n" % n for n in range(20)]


def test_full_disk_loses_lines_and_counts_them(path: Path) -> None:
    import os

    writer = LogWriter(str(path))
    os.close(writer._file)
    writer._file = os.open("/dev/full", os.O_WRONLY)
    writer.write(1, b"a\nb\n", now=AT)
    assert writer.lost == 2
    writer.close(now=AT)


def test_since_and_until_select() -> None:
    entries = [Entry(1, b"%d" % n, n) for n in range(10)]
    assert [e.at for e in selected(entries, since=3, until=6)] == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-01-02T15:04:05.123456789Z", AT),
        ("2026-01-02T16:04:05.123456789+01:00", AT),
        ("2026-01-02T15:04:05Z", AT - 123_456_789),
        ("2026-01-02T15:04:05.1234567891234Z", AT),
    ],
)
def test_times_are_parsed(text: str, at: int) -> None:
    assert parse_time(text) == at
    assert parse_time(format_time(at)) == at


@pytest.mark.parametrize("text", ["", "2026", "2026-01-02T15:04:05", "2026-13-02T15:04:05Z", "xZ"])
def test_bad_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("10s", AT - 10 * NANOSECONDS),
        ("1h30m", AT - 5400 * NANOSECONDS),
        ("1767366245.5", 1_767_366_245 * NANOSECONDS + 500_000_000),
        ("2026-01-02", 1_767_312_000 * NANOSECONDS),
        ("2026-01-02T00:00:00", 1_767_312_000 * NANOSECONDS),
    ],
)
def test_moments_are_dockers(text: str, at: int) -> None:
    assert parse_moment(text, now=lambda: AT) == at


@pytest.mark.parametrize("text", ["yesterday", "10", "5x", "-3s", "2026-99-99"])
def test_moment_or_error(text: str) -> None:
    if text == "10":
        assert parse_moment(text, now=lambda: AT) == 10 * NANOSECONDS
    else:
        with pytest.raises(LaminaError, match="invalid time"):
            parse_moment(text, now=lambda: AT)


def test_durations_add_up() -> None:
    assert parse_duration("1h1m1s1ms1us1ns") == 3_661_001_001_001
