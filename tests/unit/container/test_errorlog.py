# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from lamina.container.errorlog import command_status, late_failure, read_error

RUNC = "runc run failed: unable to start container process: exec: "


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("executable file `nope` not found in $PATH: No such file or directory", 127),
        (RUNC + '"nope": executable file not found in $PATH', 127),
        (RUNC + '"/nope": stat /nope: no such file or directory', 127),
        (RUNC + '"/etc": permission denied', 126),
        ("open executable: Permission denied", 126),
        ("exec container process `/x`: Exec format error", 126),
        ("setrlimit `RLIMIT_NOFILE`: Operation not permitted", None),
        ("cgroups in hybrid mode not supported", None),
        ("mount `/x` to `/y`: No such file or directory", None),
    ],
)
def test_status_of_a_message(message: str, status: int | None) -> None:
    assert command_status(message) == status


def test_program_that_prints_a_similar_line_among_others_keeps_its_status() -> None:
    assert late_failure(b"exec /x: exec format error\n") == 126
    assert late_failure(b"building\nexec /x: exec format error\n") is None
    assert late_failure(b"") is None


def test_last_error_of_either_format_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert read_error(str(log)) == ""
    log.write_text('{"level":"error","msg":"first"}\n{"level":"warning","msg":"not this"}\n')
    assert read_error(str(log)) == "first"
    log.write_text("first\nplain words\n\n")
    assert read_error(str(log)) == "plain words"
    log.write_text("{broken")
    assert read_error(str(log)) == "{broken"
