# SPDX-License-Identifier: Apache-2.0
"""docs/dockerfile.md has a row with tests for every part of the language."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from lamina.testing.corpus import parse_cases

PATH = Path(__file__).parents[2] / "scripts" / "check_dockerfile_table.py"
SPEC = importlib.util.spec_from_file_location("check_dockerfile_table", PATH)
assert SPEC is not None
assert SPEC.loader is not None
TABLE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(TABLE)


def test_every_part_has_a_row_and_every_row_a_test() -> None:
    assert TABLE.problems() == []


def test_missing_row_empty_row_and_unknown_test_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TABLE.DOCUMENT.read_text().replace("| `SHELL` |", "| `SHILL` |")
    text = text.replace("| `copy/chmod-octal`", "| `copy/no-such-case`")
    text = text.replace("| `config/maintainer` |", "| |")
    document = tmp_path / "dockerfile.md"
    document.write_text(text)
    monkeypatch.setattr(TABLE, "DOCUMENT", document)
    assert TABLE.problems() == [
        "`SHELL` has no row",
        "`COPY --chmod`: there is no test copy/no-such-case",
        "`MAINTAINER` names no test",
    ]


def test_corpus_file_is_read_section_by_section() -> None:
    text = "Words.\n\n## a: one\n--- context\nx\n\ny\n--- Dockerfile\nFROM x\n\n## b: two\n--- Dockerfile\n"
    first, second = parse_cases(text, file="dir/group.txt")
    assert (first.id, first.about, first.line) == ("group/a", "one", 3)
    assert first.section("context") == "x\n\ny\n"
    assert first.section("Dockerfile") == "FROM x\n"
    assert (second.id, second.section("error")) == ("group/b", None)


@pytest.mark.parametrize(
    "text",
    [
        "## a\n--- Dockerfile\n",
        "## a: x\n--- Dockerfile\n## a: y\n--- Dockerfile\n",
        "## a: x\n--- context\n",
        "## a: x\ntext\n--- Dockerfile\n",
        "## a: x\n--- Dockerfile\n--- Dockerfile\n",
        "## a: x\n--- Dockerfile\n--- other\n",
    ],
)
def test_corpus_file_that_is_wrong_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"group\.txt:"):
        parse_cases(text, file="group.txt")
