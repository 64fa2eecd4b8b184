# SPDX-License-Identifier: Apache-2.0
"""Rules of the house that a linter does not know."""

from __future__ import annotations

import ast
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
    if relative(path) in {"start/__init__.py", "start/record.py"}:
        return
    assert "dataclasses" not in path.read_text()


# modules that ask an object for a name: of the standard library's and other packages' objects
ASKS_OTHERS = {
    "bake/hcl.py", "bake/scope.py", "cli/bake.py", "cli/build.py",
    "cli/build_steps.py", "cli/main.py", "cli/report.py", "cli/template.py", "container/launcher.py", "layer/apply.py", "layer/create.py",
    "remote/download.py", "remote/http.py", "server/database.py", "server/rsgi.py", "start/enumeration.py",
    "start/record.py", "store/database.py", "testing/skips.py",
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


# built with an old C library, as uv's and conda's were; container/launcher.py asks before
@pytest.mark.parametrize(
    "path", [p for p in SOURCES if relative(p) != "container/launcher.py"], ids=relative
)
def test_what_some_pythons_lack_is_asked_of_the_c_library(path: Path) -> None:
    lacking = r"os\.(memfd_create|pidfd_open|copy_file_range)\(|pidfd_send_signal\(|setsid=True"
    assert not re.search(lacking, path.read_text()), "see lamina.start.libc"


def imported(node: ast.AST) -> list[str]:
    """The modules that a statement imports, of the outermost package."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module.partition(".")[0]]
    return []


# container/launcher.py is a program that starts without lamina
@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if not relative(p).startswith(("start/", "container/launcher.py"))],
    ids=relative,
)
def test_what_is_behind_standard_modules_is_the_concern_of_one_room(path: Path) -> None:
    found = [name for node in ast.walk(ast.parse(path.read_bytes())) for name in imported(node)]
    private = [name for name in found if name.startswith("_") and name != "__future__"]
    assert private == [], "lamina.start has a module for it, or should have one"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_work_goes_down_as_one_value(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            takes = {each.arg for each in [*node.args.args, *node.args.kwonlyargs]}
            assert not {"emit", "cancel", "clock"} <= takes, f"{node.name}: see lamina.tasks.Work"


def test_tests_wait_for_something() -> None:
    """A sleep is too short on one machine and too long on all others: `lamina.testing.waiting`."""
    sleeping = {path.name for path in TESTS if re.search(r"\btime\.sleep\(", path.read_text())}
    assert sleeping == {"waiting.py", "plugin.py"}  # the plugin waits for users' containers


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
