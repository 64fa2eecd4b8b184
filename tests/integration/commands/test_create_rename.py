# SPDX-License-Identifier: Apache-2.0
"""`create` and `rename`."""

from __future__ import annotations

import re
from pathlib import Path

from lamina.testing.busybox import Lamina


def test_created_container_waits_for_its_start(lamina: Lamina, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    id = lamina.out("create", "--name", "web", "--cidfile", str(file), "bb", "echo", "hello")
    assert re.fullmatch("[0-9a-f]{64}", id)
    assert file.read_text() == id
    assert lamina.out("ps", "-a", "--format", "{{.Names}} {{.Status}}") == "web Created"
    assert lamina.out("ps", "-q") == ""
    assert lamina.out("start", "-a", "web") == "hello"


def test_container_create_is_its_other_name(lamina: Lamina) -> None:
    lamina("container", "create", "--name", "web", "bb", "sh", "-c", "exit 3")
    lamina("start", "-a", "web", status=3)


def test_create_refuses_what_run_refuses(lamina: Lamina) -> None:
    assert "--link is not supported" in lamina("create", "--link", "x", "bb", status=1).stderr
    assert "requires at least 1 argument" in lamina("create", status=125).stderr
    assert "not found" in lamina("create", "--pull=never", "nosuch", status=1).stderr
    assert "unknown flag: --detach" in lamina("create", "--detach", "bb", status=125).stderr


def test_rename_gives_another_name_in_every_state(lamina: Lamina) -> None:
    id = lamina.out("create", "--name", "one", "bb", "sleep", "600")
    assert lamina.out("rename", "one", "two") == ""
    assert "No such container: one" in lamina("rename", "one", "x", status=1).stderr
    lamina("start", "two")
    lamina("container", "rename", id[:12], "/three")
    assert lamina.inspect(id)["Name"] == "/three"
    lamina("exec", "three", "true")
    lamina("kill", "three")
    lamina("rename", "three", "four")
    assert lamina.out("ps", "-a", "--format", "{{.Names}}") == "four"


def test_rename_refuses_names_that_are_taken_or_none(lamina: Lamina) -> None:
    lamina("create", "--name", "one", "bb")
    lamina("create", "--name", "two", "bb")
    assert (
        'The container name "/two" is already in use'
        in lamina("rename", "one", "two", status=1).stderr
    )
    assert "same name as its current name" in lamina("rename", "one", "one", status=1).stderr
    assert "Invalid container name" in lamina("rename", "one", "a b", status=125).stderr
    assert sorted(lamina.out("ps", "-a", "--format", "{{.Names}}").split()) == ["one", "two"]
