# SPDX-License-Identifier: Apache-2.0
"""Rules of the house that a linter does not know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src/lamina").rglob("*.py"))
TESTS = sorted([*(ROOT / "tests").rglob("*.py"), *(ROOT / "src/lamina/testing").rglob("*.py")])
# container/forking.py begins a process, as the first program of a child does
EDGES = ("cli/", "app/", "testing/", "__init__.py", "container/forking.py")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT / "src/lamina"))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_file_starts_with_its_licence(path: Path) -> None:
    assert path.read_text().startswith("# SPDX-License-Identifier: Apache-2.0\n")


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if not relative(p).startswith(EDGES)], ids=relative
)
def test_world_is_read_at_the_edges_only(path: Path) -> None:
    # a string that begins a line is the first program of a child process, an edge of its own
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith('"')]
    strays = re.findall(
        r"os\.environ|os\.getenv|os\.getcwd|os\.umask\(\)|sys\.argv|random\.random|datetime\.now",
        "\n".join(lines),
    )
    assert strays == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_values_are_records_not_dataclasses(path: Path) -> None:
    if relative(path) == "record.py":
        return
    assert "dataclasses" not in path.read_text()


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if not relative(p).startswith("cli/")], ids=relative
)
def test_only_the_command_line_prints(path: Path) -> None:
    assert not re.search(r"^ *print\((?!.*# )", path.read_text(), re.MULTILINE)


def test_tests_wait_for_something() -> None:
    """A sleep is too short on one machine and too long on all others: `lamina.testing.waiting`."""
    sleeping = {path.name for path in TESTS if re.search(r"\btime\.sleep\(", path.read_text())}
    assert sleeping == {"waiting.py"}


def test_every_adr_has_its_parts_and_number() -> None:
    numbers = []
    for path in sorted((ROOT / "docs/adr").glob("*.md")):
        text = path.read_text()
        numbers.append(path.name[:4])
        for part in ("**Context.**", "**Decision.**", "**Consequences.**"):
            assert part in text or part.strip("*.") in text, f"{path.name} lacks {part}"
    assert len(numbers) == len(set(numbers))
