# SPDX-License-Identifier: Apache-2.0
"""`bake --print` of whole definitions."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest

from lamina.cli.context import Context
from lamina.cli.main import main

CASES = sorted(path for path in Path(__file__).parent.iterdir() if path.is_dir())


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_definition_prints_as_buildx_prints_it(case: Path, tmp_path: Path, golden: object) -> None:
    assert callable(golden)
    out = io.StringIO()
    world = Context(
        env={"TAG": "v2", "FROM_ENV": "e"},
        cwd=str(case),
        uid=os.geteuid(),
        stdin=io.StringIO(),
        stdout=out,
        stderr=io.StringIO(),
        clock=time.time,
        root=str(tmp_path),
    )
    names = (case / "targets").read_text().split() if (case / "targets").exists() else []
    status = main(["bake", "--print", *names], world)
    assert status == 0, world.stderr.getvalue()  # type: ignore[attr-defined]  # a StringIO
    golden(case / "print.json", out.getvalue())
