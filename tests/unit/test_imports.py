# SPDX-License-Identifier: Apache-2.0
"""Imports for types and lazy ones keep to the rules of those that run: arrows point down, no circles."""

from __future__ import annotations

import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]

# two halves of one thing: the second is loaded when it is needed
KNOWN = [
    {"lamina.container.lifecycle", "lamina.container.monitor"},  # who starts and who is started
]

UPWARDS = {("lamina.errors", "lamina.spec.span")}  # an error knows its place in a text


def circles(graph: grimp.ImportGraph) -> list[set[str]]:
    """The strongly connected sets of more than one module (Tarjan), the largest first."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        numbers[module] = lowest[module] = len(numbers)
        stack.append(module)
        for other in graph.find_modules_directly_imported_by(module):
            if other not in numbers:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], numbers[other])
        if lowest[module] == numbers[module]:
            circle = set(stack[stack.index(module) :])
            del stack[stack.index(module) :]
            found.append(circle)

    for module in sorted(graph.modules):
        if module not in numbers:
            visit(module)
    return sorted((circle for circle in found if len(circle) > 1), key=len, reverse=True)


def shown(graph: grimp.ImportGraph, circle: set[str]) -> str:
    """Who imports whom in a circle."""
    lines = []
    for module in sorted(circle):
        others = graph.find_modules_directly_imported_by(module) & circle
        lines.append(f"{module} -> {', '.join(sorted(others))}")
    return "\n".join(lines)


@pytest.fixture
def graph() -> grimp.ImportGraph:
    """Every import of lamina's, in functions and for the type checker too."""
    return grimp.build_graph("lamina", exclude_type_checking_imports=False, cache_dir=None)


def test_no_circle_of_imports_but_the_known(graph: grimp.ImportGraph) -> None:
    unknown = [circle for circle in circles(graph) if circle not in KNOWN]
    assert not unknown, "\n\n".join(shown(graph, circle) for circle in unknown)


def test_arrows_point_down_for_types_too(graph: grimp.ImportGraph) -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        linter = tomllib.load(file)["tool"]["importlinter"]
    layers = [set(row.split(" | ")) for row in linter["contracts"][0]["layers"]]
    for importer, imported in UPWARDS:
        assert graph.direct_import_exists(importer=importer, imported=imported)
        graph.remove_import(importer=importer, imported=imported)
    broken = graph.find_illegal_dependencies_for_layers(layers)
    assert not broken, [(each.importer, each.imported) for each in broken]


def test_known_circles_are_there(graph: grimp.ImportGraph) -> None:
    assert all(circle in circles(graph) for circle in KNOWN)


def test_a_circle_is_found_and_shown() -> None:
    graph = grimp.ImportGraph()
    for module in ("a", "b", "c", "d"):
        graph.add_module(module)
    for importer, imported in (("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")):
        graph.add_import(importer=importer, imported=imported)
    assert circles(graph) == [{"a", "b", "c"}]
    assert shown(graph, {"a", "b", "c"}) == "a -> b\nb -> c\nc -> a"
