# SPDX-License-Identifier: Apache-2.0
"""`build --call`: what check, outline and targets print, as text and as JSON."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest

from lamina.cli.context import Context
from lamina.cli.main import main

CASES = sorted(path.parent for path in Path(__file__).parent.glob("*/Dockerfile"))
METHODS = ("check", "outline", "targets")


def run(case: Path, root: Path, *words: str) -> str:
    """Standard output, standard error and the exit status, as one text."""
    out, err = io.StringIO(), io.StringIO()
    world = Context(
        env={},
        cwd=str(case),
        uid=os.geteuid(),
        stdin=io.StringIO(),
        stdout=out,
        stderr=err,
        clock=time.time,
        root=str(root),
    )
    status = main(["build", *words, str(case)], world)
    world.close()
    return f"{out.getvalue()}{err.getvalue()}exit {status}\n"


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
@pytest.mark.parametrize("method", METHODS)
def test_answer_is_printed_as_buildx_prints_it(
    case: Path, method: str, tmp_path: Path, golden: object
) -> None:
    assert callable(golden)
    text = run(case, tmp_path / "store", f"--call={method}")
    golden(case / f"{method}.txt", text)
    golden(case / f"{method}.json", run(case, tmp_path / "store", f"--call={method},format=json"))


def test_check_is_short_for_call_check(tmp_path: Path) -> None:
    case = CASES[0]
    assert run(case, tmp_path, "--check") == run(case, tmp_path, "--call=check")


@pytest.mark.parametrize(
    ("call", "message"),
    [("sbom", "--call=sbom is not supported"), ("check,format=xml", "'format=xml' is unknown")],
)
def test_unknown_call_is_refused_by_name(call: str, message: str, tmp_path: Path) -> None:
    assert message in run(CASES[0], tmp_path, f"--call={call}")


def test_ignorestatus_leaves_the_exit_status_alone(tmp_path: Path) -> None:
    case = Path(__file__).parent / "lint"
    assert run(case, tmp_path, "--call=check").endswith("exit 1\n")
    assert run(case, tmp_path, "--call=check,ignorestatus=true").endswith("exit 0\n")
