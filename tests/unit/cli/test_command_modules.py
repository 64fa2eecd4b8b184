# SPDX-License-Identifier: Apache-2.0
"""What commands share is in modules of its own: no command's module is another's drawer."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import lamina.cli
from lamina.cli.main import COMMANDS

SOURCES = sorted(Path(lamina.cli.__file__).parent.rglob("*.py"))
COMMAND_MODULES = {f"lamina.cli.{module}" for module, *_ in COMMANDS.values()} | {"lamina.cli.main"}


def imported(path: Path) -> set[str]:
    """Every module that is imported anywhere in the file, by name or from its package."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.name))
def test_no_module_of_the_command_line_imports_a_command(path: Path) -> None:
    assert imported(path) & COMMAND_MODULES == set()


def test_the_commands_are_among_what_was_looked_at() -> None:
    names = {f"lamina.cli.{path.stem}" for path in SOURCES}
    assert names >= COMMAND_MODULES
    assert "lamina.cli.context" in set().union(*map(imported, SOURCES))
