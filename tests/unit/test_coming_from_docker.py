# SPDX-License-Identifier: Apache-2.0
"""docs/coming-from-docker.md agrees with lamina's table of commands, and knows all of Docker's."""

from __future__ import annotations

import importlib.util
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "coming_from_docker.py"


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coming_from_docker", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_what_the_table_says() -> None:
    assert _script().check() == []


def test_a_flag_that_lamina_does_not_know_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    script = _script()
    monkeypatch.setattr(
        script, "docker", lambda: ("x", {"run": ([], ["--new-flag string"]), "newcmd": ([], [])})
    )
    problems: list[str] = []
    page = script.document(problems)
    assert problems == [
        "`run --new-flag` is neither taken nor refused",
        "`newcmd` is neither a command nor refused by its name",
    ]
    assert "`--new-flag`: unknown" in page


def test_a_flag_that_works_no_more_changes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    script = _script()
    parser_of = script.parser_of

    def without_name(command: str) -> object:
        parser = parser_of(command)
        parser.declared = [each for each in parser.declared if "--name" not in each.names]
        return parser

    monkeypatch.setattr(script, "parser_of", without_name)
    assert any("--name" in line for line in script.check())
    assert script.check()[-1].startswith("is not what it should be")
