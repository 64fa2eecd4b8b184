# SPDX-License-Identifier: Apache-2.0
"""Programs run without `subprocess`: found, fed, listened to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.system.programs import find_program, output_of

SHELL = "/bin/sh"


def test_output_and_status_of_a_program_that_is_fed_more_than_a_pipe_holds() -> None:
    text = b"line\n" * 100_000
    argv = [SHELL, "-c", 'cat; echo "$WORD" >&2; exit 3']
    assert output_of(argv, env={"WORD": "said"}, stdin=text) == (3, text, b"said\n")


def test_output_is_kept_in_memory_by_a_python_that_was_built_with_an_old_c_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    assert output_of([SHELL, "-c", "cat"], env={"PATH": os.defpath}, stdin=b"x") == (0, b"x", b"")


def test_a_signal_is_a_negative_status() -> None:
    assert output_of([SHELL, "-c", "kill -9 $$"], env={}) == (-9, b"", b"")


def test_nothing_of_ours_is_inherited(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w"):
        status, listed, _ = output_of([SHELL, "-c", "ls /proc/$$/fd"], env={"PATH": os.defpath})
    assert status == 0
    # 10: where a shell may keep its script
    assert set(listed.split()) - {b"10"} == {b"0", b"1", b"2"}


def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        output_of(["/nowhere/program"], env={})


def test_programs_are_found_in_the_order_of_the_path(tmp_path: Path) -> None:
    for name, mode in (("first", 0o644), ("second", 0o755), ("third", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool").write_text("")
        (tmp_path / name / "tool").chmod(mode)
    path = ":".join(str(tmp_path / name) for name in ("none", "first", "second", "third"))
    assert find_program("tool", search_path=f":{path}") == str(tmp_path / "second/tool")
    assert find_program("absent", search_path=path) == ""
