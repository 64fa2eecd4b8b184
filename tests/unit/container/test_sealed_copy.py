# SPDX-License-Identifier: Apache-2.0
"""Runtimes run from a copy in memory that nothing can change."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lamina.container import launcher
from lamina.container.launcher import MAX_COPY, sealed_copy
from lamina.system.programs import run_program

F_GET_SEALS = 1034
TRUE = os.path.realpath("/bin/true")


@pytest.mark.parametrize("lacking", ["nothing", "memfd_create"])
def test_copy_is_sealed_and_runs(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    monkeypatch.delattr(os, lacking, raising=False)  # a Python built with an old C library
    copy = sealed_copy(TRUE)
    try:
        assert fcntl.fcntl(copy, F_GET_SEALS) == 0xF  # what crun and runc look for
        assert os.pread(copy, MAX_COPY, 0) == Path(TRUE).read_bytes()
        with pytest.raises(PermissionError):
            os.pwrite(copy, b"x", 0)
        assert not os.get_inheritable(copy)
        assert run_program([TRUE], copy=copy, env={}, stdin=0, stdout=1, stderr=2) == 0
    finally:
        os.close(copy)


def test_scripts_large_programs_and_what_is_missing_are_not_copied(tmp_path: Path) -> None:
    script, large = tmp_path / "script", tmp_path / "large"
    script.write_text("#!/bin/sh\n")
    large.write_bytes(b"\x7fELF")
    os.truncate(large, MAX_COPY + 1)
    paths = (script, large, tmp_path / "missing")
    assert [sealed_copy(str(path)) for path in paths] == [-1, -1, -1]


def test_the_file_is_run_where_the_copy_cannot_be(tmp_path: Path) -> None:
    with (tmp_path / "no-program").open("w+b") as other:
        other.write(b"nothing to execute")
        other.flush()
        status = run_program([TRUE], copy=other.fileno(), env={}, stdin=0, stdout=1, stderr=2)
        assert status == 0
        code = (
            f"import sys; sys.path.append({os.path.dirname(launcher.__file__)!r}); import launcher; "
            f"launcher.execute([{TRUE!r}], {other.fileno()})"
        )
        argv = [sys.executable, "-I", "-S", "-c", code]
        assert subprocess.run(argv, pass_fds=[other.fileno()], check=False).returncode == 0


def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        run_program(["/nowhere/program"], env={}, stdin=0, stdout=1, stderr=2)
