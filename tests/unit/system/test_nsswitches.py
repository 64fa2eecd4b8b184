# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

from lamina.system.nsswitches import refusals


def write(top: Path, name: str, text: str) -> None:
    path = top / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_each_switch_that_refuses_names_the_command_that_changes_it(tmp_path: Path) -> None:
    write(tmp_path, "kernel/unprivileged_userns_clone", "0\n")
    write(tmp_path, "user/max_user_namespaces", "0\n")
    write(tmp_path, "kernel/apparmor_restrict_unprivileged_userns", "1\n")
    assert [each.mend for each in refusals(str(tmp_path))] == [
        "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        "sudo sysctl -w user.max_user_namespaces=28633",
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ]


def test_switches_that_let_or_are_not_there_are_no_refusals(tmp_path: Path) -> None:
    write(tmp_path, "kernel/unprivileged_userns_clone", "1\n")
    write(tmp_path, "user/max_user_namespaces", "96365\n")
    assert refusals(str(tmp_path)) == ()
