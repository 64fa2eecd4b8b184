# SPDX-License-Identifier: Apache-2.0
"""What the hot commands import and write: budgets that are counted, not timed."""

from __future__ import annotations

import re
import subprocess

import pytest

from lamina.testing.command import Lamina
from lamina.testing.imports import imports

pytestmark = pytest.mark.root

DOCKERFILE = (
    "FROM busybox\nLABEL a=b\nENV X=1\nWORKDIR /app\nRUN echo deps > /deps\n"
    'COPY . /app\nEXPOSE 8000\nCMD ["sh"]\n'
)
# of the standard library, beyond what the interpreter itself starts with; a new one costs every user
# of every cached build its import time, so weigh it against a lazy import first
ALLOWED = {
    "__future__", "_functools", "_json", "_sha2", "_sha256", "_sqlite3", "_sre",
    "_struct", "atexit", "errno", "fcntl",
    "gc", "io", "itertools", "mmap", "struct", "zlib",  # io: at each start before 3.14
}  # fmt: skip
MODULES_OF_A_CACHED_BUILD = 115  # of lamina's own; two of them write the event log
ISAL = {f"isal{name}" for name in ("", "._isal", "._version", ".igzip_lib", ".isal_zlib")}
EDIT_ALSO = {"_ctypes", "encodings.ascii", *ISAL}  # a layer, and syncfs(2)
RUN_ALSO = {"_ctypes", "_socket", "select"}
MODULES_OF_A_RUN = 91


@pytest.fixture
def built(lamina: Lamina) -> Lamina:
    for number in range(40):
        place = lamina.cwd / f"pkg{number % 5}"
        place.mkdir(exist_ok=True)
        (place / f"module{number}.py").write_text(f"VALUE = {number}\n" * 20)
    (lamina.cwd / "Dockerfile").write_text(DOCKERFILE)
    lamina("build", "-t", "lean", ".")
    return lamina


@pytest.mark.tool("busybox")
def test_a_cached_build_imports_what_it_needs(built: Lamina) -> None:
    standard, own = imports(built, "build", "-t", "lean", ".")
    assert standard - ALLOWED == set()
    assert len(own) <= MODULES_OF_A_CACHED_BUILD, sorted(own)


@pytest.mark.tool("busybox")
def test_a_build_after_one_changed_file_imports_what_it_needs(built: Lamina) -> None:
    (built.cwd / "pkg0/module0.py").write_text("VALUE = 'changed'\n")
    standard, _ = imports(built, "build", "-t", "lean", ".")
    assert standard - ALLOWED - EDIT_ALSO == set()


@pytest.mark.tool("busybox")
@pytest.mark.parametrize("verb", ["images", "ps"])
def test_lists_import_no_argument_parser(built: Lamina, verb: str) -> None:
    standard, _ = imports(built, verb)
    assert standard & {"argparse", "gettext", "datetime", "sqlite3", "ssl", "dataclasses"} == set()


@pytest.mark.tool("busybox")
@pytest.mark.tool("strace")
def test_a_cached_build_flushes_little(built: Lamina) -> None:
    trace = built.cwd.parent / "trace"
    argv = [
        "strace",
        "-f",
        "-o",
        str(trace),
        "-e",
        "trace=fsync,fdatasync,syncfs,sync,clone,clone3,vfork",
    ]
    subprocess.run(
        [*argv, *built.argv("build", "-t", "lean", ".")],
        env=built.env, cwd=built.cwd, capture_output=True, check=True,
    )  # fmt: skip
    calls = re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE)
    # sqlite: the new log and its directory, then log and database when the last user closes
    assert len(calls) <= 4, calls


def test_the_command_ends_with_its_output_complete(built: Lamina) -> None:
    listed = built("images", "--format", "{{.Repository}}").stdout.split()
    assert set(listed) == {"busybox", "lean"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            built.argv("images"), env=built.env, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode != 0


@pytest.mark.tool("busybox")
@pytest.mark.tool("crun")
def test_a_container_starts_with_few_modules(built: Lamina) -> None:
    """The command, that is: what its monitor, a fork, imports beyond that is not counted."""
    built("run", "--rm", "--network=host", "busybox", "true")  # finds the runtime
    standard, own = imports(built, "run", "--rm", "--network=host", "busybox", "true")
    assert standard - ALLOWED - RUN_ALSO == set()
    assert len(own) <= MODULES_OF_A_RUN, sorted(own)
