# SPDX-License-Identifier: Apache-2.0
"""docs/hot-modules.txt lists what the commands load that people wait for most often."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.testing.command import Lamina
from lamina.testing.imports import imports

pytestmark = [pytest.mark.root, pytest.mark.tool("busybox", "crun")]

ROOT = Path(__file__).parents[3]
LIST = ROOT / "docs/hot-modules.txt"
HEAD = """\
# The modules of a cached build, of a build after one changed file, and of everyday commands.
# Here an import costs every user of every start: heavy ones are made where they are needed.
# Written by a test: WRITE_HOT_MODULES=1 pytest tests/integration/acceptance/test_hot_modules.py
"""
SOMETIMES = {"lamina.builder.layeredbase"}  # if layers are unpacked and not mounted as images


def loaded(lamina: Lamina) -> set[str]:
    """What the commands load, lamina's own."""
    (lamina.cwd / "Dockerfile").write_text("FROM busybox\nRUN true\nCOPY file /app/\n")
    (lamina.cwd / "file").write_text("1")
    build = ("build", "-t", "hot", ".")
    run = ("run", "--rm", "--network=host", "hot", "true")
    lamina(*build)
    lamina(*run)  # finds the runtime
    lamina("run", "-d", "--name", "box", "--network=host", "hot", "sleep", "1000")
    everyday = (
        *(build, ("images",), ("ps",), run, ("inspect", "hot"), ("inspect", "box")),
        *(("tag", "hot", "other"), ("rmi", "other"), ("version",)),
        *(("exec", "box", "true"), ("logs", "box"), ("stop", "-t0", "box"), ("rm", "box")),
    )
    found = set()
    for words in everyday:
        found |= imports(lamina, *words)[1]
    (lamina.cwd / "file").write_text("2")
    return found | imports(lamina, *build)[1]


def test_hot_modules_are_listed(lamina: Lamina) -> None:
    found = loaded(lamina)
    if os.environ.get("WRITE_HOT_MODULES"):
        LIST.write_text(HEAD + "".join(f"{name}\n" for name in sorted(found | SOMETIMES)))
    listed = {line for line in LIST.read_text().splitlines() if not line.startswith("#")}
    assert found - listed == set(), "is loaded now by commands that people wait for"
    assert listed - found - SOMETIMES == set(), "is loaded no longer, or there no longer"
