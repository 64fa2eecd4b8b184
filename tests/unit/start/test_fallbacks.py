# SPDX-License-Identifier: Apache-2.0
"""What stands in for a standard module leaves its work to that one where it has not what it needs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import lamina

SOURCE = os.path.dirname(os.path.dirname(lamina.__file__))
# the standard module: (what is behind it, what is done with the one that stands in)
CASES = {
    "json": (
        "_json",
        ["from lamina.start.jsontext import dumps, loads", "assert loads(dumps([1])) == [1]"],
    ),
    "re": (
        "_sre",
        [
            "from lamina.spec.reference import Reference",
            "assert Reference.parse('a/b:c').tag == 'c'",
        ],
    ),
    "hashlib": (
        "_sha2 _sha256",
        [
            "from lamina.start.hashing import sha256_of",
            "assert sha256_of(b'').hexdigest()[:2] == 'e3'",
        ],
    ),
    "sqlite3": (
        "_sqlite3",
        ["from lamina.start.sqlitemodule import sqlite3", "sqlite3.connect(':memory:').close()"],
    ),
    "signal": (
        "_signal",
        ["from lamina.start.lowlevel import signal", "assert signal.SIGKILL == 9"],
    ),
    "socket": (
        "_socket",
        [
            "from lamina.system.sockets import pair",
            "one, other = pair()",
            "with one, other: one.send(b'x'); assert other.recv(1) == b'x'",
        ],
    ),
    "ctypes": (
        "_ctypes",
        [
            "from lamina.start.libc import call, get_errno",
            "assert call('access', b'/', 0) == 0",
            "assert call('syscall', 1 << 20) == -1 and get_errno() == 38",
        ],
    ),
}


@pytest.mark.parametrize("standard", CASES)
def test_the_standard_module_does_it(standard: str) -> None:
    hidden, use = CASES[standard]
    code = (
        f"import sys; sys.path.append({SOURCE!r}); import os, {standard}\n"
        f"sys.modules.update(dict.fromkeys({hidden.split()!r}))\n" + "\n".join(use)
    )
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", code],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
