# SPDX-License-Identifier: Apache-2.0
"""Finding a runtime on this very host, and on one whose runtimes are broken."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from lamina.container.filterprogram import ANNOTATION, hand_back
from lamina.container.host import has_seccomp, read_cgroups
from lamina.container.info import host_report
from lamina.container.ports import ProcessSpec
from lamina.container.profile import seccomp_for
from lamina.container.runtime import NoRuntime, find_runtime
from lamina.testing.skips import host_lacks

pytestmark = [pytest.mark.root, pytest.mark.tool("crun"), pytest.mark.tool("runc")]


def test_crun_is_preferred_and_nothing_is_left(tmp_path: Path) -> None:
    found = find_runtime(str(tmp_path))
    assert found.name == "crun"
    assert [path.name for path in tmp_path.iterdir()] == ["runtime.json"]
    assert not list(Path("/sys/fs/cgroup").glob(f"*/lamina-*-{os.getpid()}"))


def test_crun_leaves_its_filter_to_be_handed_back(tmp_path: Path) -> None:
    if not has_seccomp():
        host_lacks("a kernel that filters system calls")
    found = find_runtime(str(tmp_path), override="crun")
    process = ProcessSpec(argv=("true",), env=())
    profile = seccomp_for(process, found.host)
    assert profile is not None
    spec: dict[str, Any] = {}
    hand_back(found, spec, profile)
    program = base64.b64decode(spec["annotations"][ANNOTATION])
    assert len(program) % 8 == 0
    assert len(program) > 8 * 100  # a filter of some hundred system calls
    assert find_runtime(str(tmp_path), override="crun").program == found.program  # kept


def test_runc_is_asked_for_no_filter(tmp_path: Path) -> None:
    assert find_runtime(str(tmp_path), override="runc").program == ""


def test_hybrid_host_is_shielded(tmp_path: Path) -> None:
    if read_cgroups().mode != "hybrid":
        host_lacks("hybrid control groups")
    assert find_runtime(str(tmp_path), override="crun").shield == read_cgroups().unified


def test_broken_crun_gives_way_to_runc(tmp_path: Path) -> None:
    broken = tmp_path / "bin/crun"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho out of order >&2\nexit 3\n")
    broken.chmod(0o755)
    runc = shutil.which("runc")
    assert runc is not None
    search = f"{broken.parent}:{Path(runc).parent}"
    found = find_runtime(str(tmp_path), search_path=search)
    assert found.path == runc
    assert any("out of order" in why for _, why in found.refused)


def test_host_where_nothing_works_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "crun"
    broken.write_text("not even a script")
    broken.chmod(0o755)
    with pytest.raises(NoRuntime, match="Exec format error"):
        find_runtime(str(tmp_path), override=str(broken))
    rows = host_report(str(tmp_path), override=str(broken))
    assert any(name == "Runtime" and value.startswith("none: ") for name, value in rows)


def test_report_names_what_was_chosen(tmp_path: Path) -> None:
    rows = dict(host_report(str(tmp_path)))
    assert rows["Runtime"].startswith("crun ")
    assert rows["Snapshotter"].startswith("overlayfs")
    assert rows["Cgroup mode"].split()[0] in ("v1", "v2", "hybrid", "none")
