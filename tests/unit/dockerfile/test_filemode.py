# SPDX-License-Identifier: Apache-2.0
"""--chmod: chmod(1) is the reference for what it shares with BSD's setmode."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lamina.dockerfile.filemode import FileMode, InvalidMode

SYMBOLIC = [
    "u+x", "+x", "a+x", "go-rwx", "u=rw,go=r", "u=rwX,go=rX", "g=u", "o=g-w", "a=", "ug+w,o-r",
    "u+s", "g+s", "+t", "u-x+w", "=r", "go=u-w", "u=rwx,g=rx,o=", "a+X", "u+rws,g-s",
]  # fmt: skip


@pytest.mark.parametrize("text", ["0", "755", "0644", "7777", "00000755"])
def test_octal_replaces_the_mode(text: str) -> None:
    assert FileMode.parse(text).apply(0o123, is_dir=False) == int(text, 8)


@pytest.mark.parametrize(
    "text", ["", "8", "17777", "abc", "999", "0x7", "u", "x", ",", "u+x,", "u~x", "+z", "9" * 300]
)
def test_what_is_no_mode_is_refused(text: str) -> None:
    with pytest.raises(InvalidMode, match="invalid chmod parameter"):
        FileMode.parse(text)


@pytest.mark.parametrize("mode", [0o644, 0o700, 0o755, 0o000, 0o4755])
@pytest.mark.parametrize("text", SYMBOLIC)
def test_files_get_what_chmod_gives_them(tmp_path: Path, text: str, mode: int) -> None:
    path = tmp_path / "f"
    path.touch()
    path.chmod(mode)
    # no umask: chmod(1) would leave out what the umask takes away
    subprocess.run(["chmod", text, str(path)], check=True, umask=0)
    expected = os.stat(path).st_mode & 0o7777
    assert oct(FileMode.parse(text).apply(mode, is_dir=False)) == oct(expected)


def test_directories_are_executable_for_x() -> None:
    assert FileMode.parse("u=rwX,go=rX").apply(0o600, is_dir=True) == 0o755


@pytest.mark.parametrize(("text", "mode"), [("o+st", 0o755), ("g=u", 0o2775), ("g=o", 0o2755)])
def test_bsd_rules_where_gnu_has_others(text: str, mode: int) -> None:
    """Others have no set-id bits or sticky bit; copying between classes leaves them alone."""
    before = 0o2000 | 0o755 if mode & 0o2000 else 0o755
    assert oct(FileMode.parse(text).apply(before, is_dir=False)) == oct(mode)
