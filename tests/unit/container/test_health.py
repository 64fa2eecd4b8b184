# SPDX-License-Identifier: Apache-2.0
"""What probes make of a container's health, by a clock that the tests move."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lamina.container.health import (
    MAX_OUTPUT,
    Health,
    Result,
    command_of,
    earlier_results,
    kept_output,
    read_health,
    write_health,
)
from lamina.spec.config import Healthcheck

SECOND = 1_000_000_000


def health(**fields: int) -> Health:
    seconds = {
        name: value if name == "retries" else value * SECOND for name, value in fields.items()
    }
    return Health(Healthcheck(test=("CMD", "x"), **seconds), log=[])


def probe(health: Health, code: int, *, at: float = 100.0) -> str:
    """The status after a probe that began at `at`; with a `!` if it changed."""
    changed = health.take(Result(0, 1, code, ""), begun=at)
    return health.status + "!" * changed


def test_a_success_makes_it_healthy_and_is_told_once() -> None:
    h = health()
    assert h.status == "starting"
    assert [probe(h, 0), probe(h, 0)] == ["healthy!", "healthy"]


def test_three_failures_in_a_row_make_it_unhealthy() -> None:
    h = health()
    assert [probe(h, 1), probe(h, 1), probe(h, 1)] == ["starting", "starting", "unhealthy!"]
    assert h.streak == 3
    assert [probe(h, 1), probe(h, 0), h.streak] == ["unhealthy", "healthy!", 0]


def test_a_success_between_failures_begins_the_count_anew() -> None:
    h = health(retries=2)
    assert [probe(h, code) for code in (0, 1, 0, 1, 1)] == [
        *("healthy!", "healthy", "healthy", "healthy", "unhealthy!"),
    ]


@pytest.mark.parametrize("code", [1, 2, 137, -1])
def test_whatever_is_not_zero_is_a_failure(code: int) -> None:
    assert probe(health(retries=1), code) == "unhealthy!"


def test_failures_in_the_start_period_do_not_count() -> None:
    h = health(start_period=10, retries=1)
    assert [probe(h, 1, at=9.9), h.streak] == ["starting", 0]
    assert probe(h, 1, at=10.0) == "unhealthy!"


def test_a_success_ends_the_start_period() -> None:
    h = health(start_period=10, retries=1)
    assert [probe(h, 0, at=1), probe(h, 1, at=2)] == ["healthy!", "unhealthy!"]


def test_defaults_are_dockers() -> None:
    h = health()
    assert (h.interval(0.0), h.time_limit) == (30, 30)
    assert health(start_period=60).interval(0.0) == 5


def test_the_start_interval_holds_while_it_starts() -> None:
    h = health(start_period=10, start_interval=1, interval=7, timeout=2)
    assert (h.interval(0.0), h.interval(9.9), h.interval(10.0)) == (1, 1, 7)
    probe(h, 0, at=1)
    assert (h.interval(1.0), h.time_limit) == (7, 2)


def test_the_last_five_results_are_kept() -> None:
    h = health()
    for code in range(8):
        h.take(Result(code * SECOND, code * SECOND + 5, code, f"out {code}"), begun=0)
    log = h.document()["Log"]
    assert isinstance(log, list)
    assert [entry["ExitCode"] for entry in log] == [3, 4, 5, 6, 7]
    assert log[-1] == {
        "Start": "1970-01-01T00:00:07.000000000Z",
        "End": "1970-01-01T00:00:07.000000005Z",
        "ExitCode": 7,
        "Output": "out 7",
    }


@pytest.mark.parametrize(
    ("test", "command"),
    [
        ((), ()),
        (("NONE",), ()),
        (("CMD", "curl", "-f", "x"), ("curl", "-f", "x")),
        (("CMD",), ()),
        (("CMD-SHELL", "exit 1"), ("/bin/sh", "-c", "exit 1")),
        (("CMD-SHELL",), ()),
        (("WHAT", "x"), ()),
    ],
)
def test_commands(test: tuple[str, ...], command: tuple[str, ...]) -> None:
    assert command_of(Healthcheck(test=test)) == command


def test_output_is_cut_and_made_text() -> None:
    assert kept_output(b"ok\xff", is_cut=False) == "ok\ufffd"
    assert kept_output(b"x" * MAX_OUTPUT, is_cut=False) == "x" * MAX_OUTPUT
    assert kept_output(b"x" * MAX_OUTPUT, is_cut=True) == "x" * MAX_OUTPUT + "..."


def test_others_read_what_was_written(tmp_path: Path) -> None:
    assert read_health(str(tmp_path)) is None
    h = health()
    probe(h, 0)
    write_health(str(tmp_path), h)
    assert read_health(str(tmp_path)) == json.loads(json.dumps(h.document()))
    assert len(earlier_results(str(tmp_path))) == 1
    again = Health(Healthcheck(), log=earlier_results(str(tmp_path)))
    assert (again.status, again.document()["Log"]) == ("starting", h.document()["Log"])


@pytest.mark.parametrize("text", ["", "{", "[]", '{"Log": 7}'])
def test_a_damaged_file_is_no_health(tmp_path: Path, text: str) -> None:
    (tmp_path / "health.json").write_text(text)
    assert earlier_results(str(tmp_path)) == []
