# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from lamina.container import probe
from lamina.container.host import Cgroups, NoRuntime, Runtime
from lamina.container.probe import tiny_program
from lamina.container.runtime import find_runtime
from lamina.container.spec import HostFacts
from lamina.testing.skips import host_lacks


def runtime(name: str = "crun", *, manager: str = "cgroupfs") -> Runtime:
    return Runtime(
        name=name,
        path=f"/usr/bin/{name}",
        version="1",
        manager=manager,
        cgroups=Cgroups("v2"),
        shield="",
        seccomp=True,
        host=HostFacts(architecture="amd64", kernel=(6, 1), capabilities=()),
        why="it ran",
        refused=(("another", "did not"),),
    )


def test_command_of_crun() -> None:
    assert runtime().command("kill", "id", "9", root="/state", log="/log") == (
        *("/usr/bin/crun", "--root", "/state", "--cgroup-manager=cgroupfs"),
        *("--log", "/log", "--log-format", "text", "kill", "id", "9"),
    )


def test_command_of_runc_has_no_cgroup_manager() -> None:
    command = runtime("runc").command("state", "id", root="/state")
    assert command == ("/usr/bin/runc", "--root", "/state", "state", "id")


def test_no_control_group_without_a_manager() -> None:
    assert runtime().cgroup_path("x") == "/x"
    assert runtime(manager="disabled").cgroup_path("x") == ""


def test_description_says_why_and_what_was_refused() -> None:
    rows = runtime().describe()
    assert ("Runtime", "crun 1 (/usr/bin/crun)") in rows
    assert ("Runtime chosen", "it ran") in rows
    assert ("Runtime refused", "another: did not") in rows


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A directory with a `crun` that exists, for a probe that is replaced."""
    path = tmp_path / "bin/crun"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def probes(fake: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []

    def count(root: str, candidates: object, cgroups: Cgroups, *, seccomp: bool) -> Runtime:
        seen.append(root)
        return runtime()

    monkeypatch.setattr(probe, "probe", count)
    return seen


def test_second_call_does_not_probe(tmp_path: Path, fake: Path, probes: list[str]) -> None:
    found = [find_runtime(str(tmp_path), search_path=str(fake.parent)) for _ in range(2)]
    assert len(probes) == 1
    assert found[1].refused == (("another", "did not"),)
    assert found[1].host.architecture != ""


def test_new_binary_is_probed_again(tmp_path: Path, fake: Path, probes: list[str]) -> None:
    find_runtime(str(tmp_path), search_path=str(fake.parent))
    os.utime(fake, (1, 1))
    find_runtime(str(tmp_path), search_path=str(fake.parent))
    assert len(probes) == 2


def test_other_override_is_probed_again(tmp_path: Path, fake: Path, probes: list[str]) -> None:
    find_runtime(str(tmp_path), search_path=str(fake.parent))
    find_runtime(str(tmp_path), override=str(fake))
    assert len(probes) == 2
    find_runtime(str(tmp_path), search_path=str(fake.parent))  # neither forgets the other
    find_runtime(str(tmp_path), override=str(fake))
    assert len(probes) == 2


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"version": 1}', '{"version": 1, "keys": [], "override": ""}']
)
def test_damaged_record_is_probed_again(
    tmp_path: Path, fake: Path, probes: list[str], text: str
) -> None:
    (tmp_path / "runtime.json").write_text(text)
    find_runtime(str(tmp_path), search_path=str(fake.parent))
    assert len(probes) == 1


def test_damaged_values_are_probed_again(tmp_path: Path, fake: Path, probes: list[str]) -> None:
    find_runtime(str(tmp_path), search_path=str(fake.parent))
    document = json.loads((tmp_path / "runtime.json").read_text())
    for damage in ({"path": 3}, {"refused": 7}, {"refused": [1]}):
        damaged = {**document, "runtime": {**document["runtime"], **damage}}
        (tmp_path / "runtime.json").write_text(json.dumps(damaged))
        find_runtime(str(tmp_path), search_path=str(fake.parent))
    assert len(probes) == 4


def test_no_runtime_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(NoRuntime, match="crun and runc") as caught:
        find_runtime(str(tmp_path), search_path=str(tmp_path))
    assert "install crun" in caught.value.hint


def test_override_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoRuntime, match="/absent/crun"):
        find_runtime(str(tmp_path), override="/absent/crun")


def test_tiny_program_really_exits_with_zero(tmp_path: Path) -> None:
    program = tiny_program(os.uname().machine)
    if program is None:
        host_lacks("a processor for which there is a tiny program")
    path = tmp_path / "exit"
    path.write_bytes(program)
    path.chmod(0o755)
    assert subprocess.run([path], check=False).returncode == 0
    assert len(program) < 200


def test_tiny_program_of_an_unknown_machine() -> None:
    assert tiny_program("vax") is None


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64"])
def test_tiny_programs_are_whole(machine: str) -> None:
    program = tiny_program(machine)
    assert program is not None
    assert program.endswith(b"/device\0")
    assert int.from_bytes(program[96:104], "little") == len(program)  # p_filesz
