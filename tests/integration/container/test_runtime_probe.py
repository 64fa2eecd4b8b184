# SPDX-License-Identifier: Apache-2.0
"""Finding a runtime on this very host, and on one whose runtimes are broken."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lamina.container.filterprogram import ANNOTATION, hand_back
from lamina.container.host import Cgroups, NoRuntime, has_seccomp, read_cgroups, read_facts
from lamina.container.info import host_report
from lamina.container.ports import ProcessSpec
from lamina.container.probe import tiny_program
from lamina.container.profile import seccomp_for
from lamina.container.runtime import find_runtime
from lamina.container.spec import HostFacts
from lamina.start.record import replace
from lamina.testing.skips import host_lacks

MACHINE = os.uname().machine
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


@pytest.mark.parametrize(
    "machine",
    [
        pytest.param(name, marks=() if name == MACHINE else pytest.mark.tool(f"qemu-{name}-static"))
        for name in ("x86_64", "aarch64", "riscv64")
    ],
)
def test_program_tells_whether_a_device_node_could_be_opened(tmp_path: Path, machine: str) -> None:
    program = tiny_program(machine)
    assert program is not None
    (tmp_path / "program").write_bytes(program)
    (tmp_path / "program").chmod(0o755)
    argv = ["/program"]
    if machine != MACHINE:
        shutil.copy(shutil.which(f"qemu-{machine}-static") or "", tmp_path / "interpreter")
        argv = ["/interpreter", "/program"]

    def status() -> int:
        return subprocess.run(
            ["chroot", "--userspec=1000:1000", str(tmp_path), *argv], check=False
        ).returncode

    tmp_path.chmod(0o755)
    assert status() == 0  # nothing there
    node = tmp_path / "device"
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    node.chmod(0o666)
    assert status() == 64
    node.chmod(0)
    assert status() == 0


def deaf(tmp_path: Path) -> str:
    """A crun that does not do what the last mount asks for."""
    path = tmp_path / "bin/crun-deaf"
    path.parent.mkdir()
    real = shutil.which("crun")
    path.write_text(
        "#!/bin/sh\n"
        "for word; do\n"
        '  test "$before" = --bundle && sed -i \'s/"remount", *"nodev"/"remount"/\' "$word/config.json"\n'
        "  before=$word\n"
        "done\n"
        f'exec {real} "$@"\n'
    )
    path.chmod(0o755)
    return str(path)


def test_runtime_that_guards_no_device_nodes_is_used_behind_a_control_group_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = deaf(tmp_path)
    assert find_runtime(str(tmp_path), override="crun").nodev
    assert find_runtime(str(tmp_path), override="runc").nodev
    if read_facts(read_cgroups(), manager="cgroupfs").device_control:
        found = find_runtime(str(tmp_path), override=runtime)
        assert not found.nodev
        assert any("could be opened" in why for _, why in found.refused)
        assert dict(found.describe())["Devices"].startswith("those of images are usable")

    def unguarded(cgroups: Cgroups, *, manager: str, nodev: bool = False) -> HostFacts:
        return replace(read_facts(cgroups, manager=manager, nodev=nodev), device_control=False)

    monkeypatch.setattr("lamina.container.probe.read_facts", unguarded)
    (tmp_path / "other").mkdir()
    with pytest.raises(NoRuntime, match="device nodes of images could be opened"):
        find_runtime(str(tmp_path / "other"), override=runtime)
