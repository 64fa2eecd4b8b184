# SPDX-License-Identifier: Apache-2.0
"""Rules of the house that a linter does not know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src/lamina").rglob("*.py"))
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
    if relative(path) in {"start/__init__.py", "start/record.py"}:
        return
    assert "dataclasses" not in path.read_text()


# modules that ask an object for a name: of the standard library's and other packages' objects
ASKS_OTHERS = {
    "bake/hcl.py", "bake/scope.py", "cli/bake.py", "cli/build.py",
    "cli/build_steps.py", "cli/main.py", "cli/template.py", "layer/apply.py", "layer/create.py",
    "remote/download.py", "server/database.py", "server/rsgi.py", "start/enumeration.py",
    "start/record.py", "store/database.py",
}  # fmt: skip


def test_what_an_object_can_do_is_its_type() -> None:
    asks = {
        relative(path)
        for path in SOURCES
        if re.search(r'\b(?:get|has)attr\([^,()]+(?:\(\))?, "', path.read_text())
    }
    assert asks == ASKS_OTHERS


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if not relative(p).startswith("cli/")], ids=relative
)
def test_only_the_command_line_prints(path: Path) -> None:
    assert not re.search(r"^ *print\((?!.*# )", path.read_text(), re.MULTILINE)


def test_every_adr_has_its_parts_and_number() -> None:
    numbers = []
    for path in sorted((ROOT / "docs/adr").glob("*.md")):
        text = path.read_text()
        numbers.append(path.name[:4])
        for part in ("**Context.**", "**Decision.**", "**Consequences.**"):
            assert part in text or part.strip("*.") in text, f"{path.name} lacks {part}"
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_files_that_pages_name_are_there(name: str) -> None:
    text = (ROOT / name).read_text()
    named = set(
        re.findall(r"(?:^|[` (])((?:[\w.-]+/)+[\w-]+\.(?:py|md|txt))\b", text, re.MULTILINE)
    )
    places = (ROOT, ROOT / "src", ROOT / "src/lamina")
    gone = {path for path in named if not any((place / path).exists() for place in places)}
    assert named
    assert {path for path in gone if not re.search(r"[A-Z]{4}", path)} == set()  # NAME is any
