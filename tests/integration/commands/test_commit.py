# SPDX-License-Identifier: Apache-2.0
"""`commit`: an image of a container."""

from __future__ import annotations

import json

import pytest

from lamina.testing.busybox import Lamina

WRITE = "echo made > /made; rm /etc/notexec; echo x > /data/seed; echo v > /vol/kept-out"


PAUSES = pytest.mark.host_root("without a control group nothing is paused")


@pytest.mark.parametrize("state", [pytest.param("running", marks=PAUSES), "exited"])
def test_what_the_container_wrote_is_in_the_image(lamina: Lamina, state: str) -> None:
    flags = ("--name", "it", "-v", "/vol", "-e", "A=b", "-l", "k=v", "-w", "/data", "-u", "0")
    if state == "running":
        lamina("run", "-d", *flags, "bb", "sleep", "600")
        lamina("exec", "it", "sh", "-c", WRITE)
    else:
        lamina("run", *flags, "bb", "sh", "-c", WRITE)
    id = lamina.out("commit", "-m", "why", "-a", "me", "-c", "CMD echo hi", "it", "new:1")
    image = json.loads(lamina.out("inspect", "new:1"))[0]
    assert image["Id"] == id
    assert image["Author"] == "me"
    assert image["Config"]["Cmd"] == ["/bin/sh", "-c", "echo hi"]
    assert {"PATH=/bin", "A=b"} <= set(image["Config"]["Env"])
    assert image["Config"]["Labels"] == {"k": "v"}
    assert image["Config"]["WorkingDir"] == "/data"
    assert "why" in lamina.out("history", "new:1")
    seen = lamina.out("run", "--rm", "new:1", "sh", "-c", "cat /made seed; ls /etc /vol")
    assert seen.split() == ["made", "x", "/etc:", "group", "hostname", "hosts", "passwd",
                            "resolv.conf", "/vol:"]  # fmt: skip
    assert lamina.out("run", "--rm", "new:1") == "hi"
    if state == "running":
        assert lamina.out("exec", "it", "echo", "goes on") == "goes on"


def test_mount_points_of_the_runtime_are_not_in_the_image(lamina: Lamina) -> None:
    lamina("run", "-d", "--name", "it", "bb", "sleep", "600")
    lamina("container", "commit", "--pause=false", "it", "new")
    lamina("create", "--name", "other", "new", "true")
    assert lamina.out("diff", "other") == ""
    layers = json.loads(lamina.out("inspect", "new"))[0]["RootFS"]["Layers"]
    assert len(layers) == 2


def test_commit_without_a_name_prints_the_id(lamina: Lamina) -> None:
    lamina("create", "--name", "it", "bb", "true")
    id = lamina.out("commit", "it")
    assert lamina.out("run", "--rm", id, "echo", "works") == "works"


def test_bad_commits_are_refused(lamina: Lamina) -> None:
    lamina("create", "--name", "it", "bb", "true")
    assert "No such container" in lamina("commit", "nosuch", status=1).stderr
    lamina("commit", "-c", "FROM x", "it", status=1)
    lamina("commit", "it", "UPPER", status=1)
    assert "new" not in lamina.out("images")
