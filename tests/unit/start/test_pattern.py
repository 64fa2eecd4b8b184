# SPDX-License-Identifier: Apache-2.0
"""Lazy patterns, and the compiled ones kept in the source."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from lamina.start import patterncodes
from lamina.start.pattern import ASCII, DOTALL, pattern

_sre = importlib.import_module("_sre")
SCRIPT = Path(__file__).parents[3] / "scripts/patterns.py"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("patterns_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_pattern_of_a_build_is_kept_and_no_other() -> None:
    assert sorted(patterncodes.CODES) == script().patterns(), "run scripts/patterns.py"


def test_codes_are_kept_for_the_engine_of_this_python() -> None:
    assert _sre.MAGIC in patterncodes.ENGINES, "try scripts/patterns.py with its number added"
    assert _sre.CODESIZE == patterncodes.CODESIZE


def test_kept_codes_are_what_re_compiles() -> None:
    writer = script()
    for key, code in patterncodes.CODES.items():
        assert writer.compiled(*key) == code, f"{key}: run scripts/patterns.py"


@pytest.mark.parametrize("key", sorted(patterncodes.CODES))
def test_a_lazy_pattern_is_the_same_pattern(key: tuple[str, int]) -> None:
    lazy, usual = pattern(*key), re.compile(*key)
    assert (lazy.pattern, lazy.flags, lazy.groups) == (usual.pattern, usual.flags, usual.groups)


def test_flags_are_those_of_re() -> None:
    assert (ASCII, DOTALL) == (re.ASCII, re.DOTALL)


def test_a_pattern_that_is_not_kept_is_compiled() -> None:
    found = pattern(r"(?P<kept>no)+", 0).fullmatch("nono")
    assert found is not None
    assert found["kept"] == "no"


def test_another_engine_gets_patterns_from_re(monkeypatch: pytest.MonkeyPatch) -> None:
    (text, flags), *_ = sorted(patterncodes.CODES)
    monkeypatch.setattr(patterncodes, "CODES", {(text, flags): (flags, (), 0, (), ())})
    monkeypatch.setattr(patterncodes, "ENGINES", ())
    assert pattern(text, flags).groups == re.compile(text, flags).groups


def test_a_kept_pattern_does_not_import_re() -> None:
    code = (
        "import sys; from lamina.spec.reference import Reference; Reference.parse('a/b:c'); "
        "sys.exit('re' in sys.modules)"
    )
    argv = [sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]
    assert subprocess.run(argv, check=False).returncode == 0
