# SPDX-License-Identifier: Apache-2.0
"""Check the table of docs/dockerfile.md: no part of the language without a row, no row without a test.

A test is written as `GROUP/NAME` (a case of tests/corpus), `golden/NAME` (a directory of
tests/golden/dockerfile) or `FILE.py::FUNCTION`. Prints what is wrong, one line each; status 1.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

from lamina.dockerfile import checks, lexer, operands, parser, stage
from lamina.dockerfile.bases import Bases, LowerOptions
from lamina.spec.platform import Platform
from lamina.testing.corpus import read_corpus

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "dockerfile.md"
HEADER = "| part | tests |"


def rows(text: str) -> dict[str, list[str]]:
    """Part -> tests, of every table with the header."""
    found: dict[str, list[str]] = {}
    inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
        elif line == HEADER:
            inside = True
        elif inside and not line.startswith("|---"):
            # a pipe inside a cell is written \|
            part, tests = re.split(r"(?<!\\)\|", line)[1:3]
            found[part.strip()] = re.findall(r"`([^`]+)`", tests)
    return found


def required() -> set[str]:
    """The parts that must have a row, as the code knows them."""
    parts = set(parser._PARSERS)
    parts |= {f"{name} --{flag}" for name, flags in operands.FLAGS.items() for flag in flags}
    parts |= {f"# {name}=" for name in lexer.DIRECTIVES}
    parts |= {f"ARG {name.upper()}" for name in stage.PROXY_ARGS}
    plain = parser.parse(b"FROM scratch\n")
    options = LowerOptions(platform=Platform("linux", "amd64"))
    checker = checks.Checker(checks.CheckOptions())
    parts |= {f"ARG {name}" for name in Bases(plain, options, checker).platform_env}
    parts |= {f"check {rule}" for rule in checks.RULES}
    return {f"`{part}`" for part in parts}


def known_tests() -> set[str]:
    """Every id that a row may name."""
    found = {case.id for case in read_corpus(ROOT / "tests" / "corpus")}
    golden = ROOT / "tests" / "golden" / "dockerfile"
    for path in golden.rglob("Dockerfile"):
        found.add(f"golden/{path.parent.relative_to(golden)}")
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.add(f"{path.name}::{node.name}")
    return found


def problems() -> list[str]:
    """What is wrong, one sentence each."""
    table = rows(DOCUMENT.read_text(encoding="utf-8"))
    known = known_tests()
    wrong = [f"{part} has no row" for part in sorted(required() - table.keys())]
    for part, tests in table.items():
        if not tests:
            wrong.append(f"{part} names no test")
        wrong += [f"{part}: there is no test {test}" for test in tests if test not in known]
    return wrong


def main() -> int:
    found = problems()
    for line in found:
        print(f"{DOCUMENT.relative_to(ROOT)}: {line}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
