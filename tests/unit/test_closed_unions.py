# SPDX-License-Identifier: Apache-2.0
"""A member added to a closed union fails mypy in every module that decides on it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# union -> the module that defines it, and those that must be told of a new member
DECISIONS = {
    "Op": ("plan/ops.py", {"plan/dump.py", "solver/keys.py", "solver/scheduler.py", "solver/stacks.py"}),
    "LayerOp": ("plan/ops.py", {"builder/making.py", "plan/dump.py", "solver/keys.py"}),
    "GivenSource": ("plan/ops.py", {"builder/sources.py", "plan/dump.py"}),
    "PinnedSource": (
        "plan/ops.py",
        {
            "builder/given.py",
            "builder/sources.py",
            "dockerfile/copying.py",
            "plan/dump.py",
            "solver/keys.py",
        },
    ),
    "FileAction": ("plan/ops.py", {"builder/making.py", "plan/dump.py", "solver/keys.py"}),
    "RunMount": ("plan/mounts.py", {"builder/mounting.py", "solver/keys.py"}),
    "Event": ("events.py", {"app/history.py", "cli/ui/plain.py", "cli/ui/tty.py"}),
    "Command": ("dockerfile/ast.py", {"dockerfile/stage.py"}),
    "Fed": ("solver/scheduler.py", {"solver/scheduler.py"}),
    "Route": ("server/routes.py", {"server/handlers.py"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Union -> the modules in which mypy names its new member, one run for all."""
    tree = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    if (ROOT / ".mypy_cache").exists():  # `make check` has just filled it: a second, not a minute
        shutil.copytree(ROOT / ".mypy_cache", tree / ".mypy_cache")
    for union, (module, _) in DECISIONS.items():
        path = tree / "src/lamina" / module
        path.write_text(_with_another(union, path.read_text()))
    command = [sys.executable, "-m", "mypy", "src"]
    run = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stdout + run.stderr
    found: dict[str, set[str]] = {union: set() for union in DECISIONS}
    for line in run.stdout.splitlines():
        place, kind, message = line.partition(": error: ")
        if kind:
            module = place.rpartition(":")[0].removeprefix("src/lamina/")
            for union in re.findall(r"\bForgotten(\w+)", message):
                found[union].add(module)
    return found


def _with_another(union: str, text: str) -> str:
    """The module with one more member in the union."""
    line = re.search(rf"^( *){union} = (.)", text, re.MULTILINE)
    assert line is not None, union
    indent, first = line.groups()
    base = "Instruction" if union == "Command" else "Record"
    return (
        f"{text[: line.start()]}{indent}class Forgotten{union}({base}): ...\n"
        f"{indent}{union} = Forgotten{union} | {first}{text[line.end() :]}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("union", DECISIONS)
def test_forgotten_member_fails_where_it_must_be_decided(
    union: str, complaints: dict[str, set[str]]
) -> None:
    assert complaints[union] == DECISIONS[union][1]
