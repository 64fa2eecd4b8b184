# SPDX-License-Identifier: Apache-2.0
"""Imports are at the top, but in hot modules, of heavy packages, and of what may be missing."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
# what a person waits for most often: docs/hot-modules.txt, which is written by a test
HOT = frozenset(
    line
    for line in (ROOT / "docs/hot-modules.txt").read_text().splitlines()
    if not line.startswith("#")
)
# loaded by every pytest of an environment: test_pytest_plugin.py counts what it imports
PLUGIN = "lamina.testing.plugin"
# packages that take several milliseconds to import and that not every caller of a module needs
HEAVY = (
    "argparse", "bcrypt", "cryptography", "difflib", "email", "granian", "hcl2", "jwt", "lark",
    "obstore", "rich", "ssl", "traceback", "urllib3", "urllib.request", "urllib.error", "yaml",
)  # fmt: skip


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted((ROOT / "src/lamina").rglob("*.py"))}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.module is not None, "imports are absolute"
    names = [f"{node.module}.{alias.name}" for alias in node.names]
    return [name if name in MODULES else node.module for name in names]


def lazy(tree: ast.AST) -> Iterator[str]:
    """The modules that are imported inside functions, unless their absence is answered there."""
    optional = {
        node
        for attempt in ast.walk(tree)
        if isinstance(attempt, ast.Try)
        and any(each.type and ast.unparse(each.type) == "ImportError" for each in attempt.handlers)
        for node in ast.walk(attempt)
    }
    for function in ast.walk(tree):
        if isinstance(function, FUNCTIONS):
            for node in ast.walk(function):
                if isinstance(node, ast.Import | ast.ImportFrom) and node not in optional:
                    yield from imported(node)


def is_heavy(name: str) -> bool:
    return any(name == heavy or name.startswith(f"{heavy}.") for heavy in HEAVY)


@pytest.mark.parametrize("name", [name for name in MODULES if name not in {*HOT, PLUGIN}])
def test_imports_are_at_the_top(name: str) -> None:
    tree = ast.parse(MODULES[name].read_bytes())
    strays = {other for other in lazy(tree) if not is_heavy(other)}
    assert strays == set(), "import them at the top"


def test_what_is_listed_exists() -> None:
    assert set(MODULES) >= HOT
    uses = {name for path in MODULES.values() for name in lazy(ast.parse(path.read_bytes()))}
    unused = [
        heavy
        for heavy in HEAVY
        if not any(name.partition(".")[0] == heavy.partition(".")[0] for name in uses)
    ]
    assert unused == []
