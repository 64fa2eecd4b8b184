# SPDX-License-Identifier: Apache-2.0
"""`_sqlite3` is imported without `functools`, and nobody else notices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import lamina

SOURCE = os.path.dirname(os.path.dirname(lamina.__file__))
USE = """
import sys
from lamina.start.sqlitemodule import sqlite3
connection = sqlite3.connect(":memory:")
for number in range(300):  # more than the cache of statements holds
    assert connection.execute(f"select {number}").fetchall() == [(number,)]
assert connection.execute("select 1").fetchall() == [(1,)]
"""


def run(tmp_path: Path, code: str) -> str:
    argv = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({SOURCE!r})\n{code}"]
    return subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True, text=True).stdout


def test_statements_work_without_functools(tmp_path: Path) -> None:
    assert run(tmp_path, USE + "print('functools' in sys.modules)") == "False\n"


def test_functools_can_be_imported_afterwards(tmp_path: Path) -> None:
    code = (
        USE + "import functools; print(functools.__name__, functools.reduce(int.__add__, [1, 2]))"
    )
    assert run(tmp_path, code) == "functools 3\n"


@pytest.mark.parametrize("first", ["functools", "threading", "sqlite3"])
def test_what_is_there_already_is_left_alone(tmp_path: Path, first: str) -> None:
    code = f"import {first}, sys; before = sys.modules.get('functools')\n{USE}"
    code += "import functools; print(functools is before or before is None, functools.partial)"
    assert run(tmp_path, code).startswith("True <class")


def test_a_thread_that_threading_does_not_know_never_sees_the_stand_in(tmp_path: Path) -> None:
    code = "import _thread; hold = _thread.allocate_lock(); hold.acquire()\n"
    code += "_thread.start_new_thread(hold.acquire, ())\n"
    code += "while not _thread._count(): pass\n"
    code += f"{USE}\nhold.release(); print('functools' in sys.modules)"
    assert run(tmp_path, code) == "True\n"
