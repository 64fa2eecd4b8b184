# SPDX-License-Identifier: Apache-2.0
"""Volumes of an ordinary user: owners through the user namespace, and their removal."""

from __future__ import annotations

import json
import os

import pytest

from lamina.testing.ordinary import UID, OrdinaryLamina

pytestmark = [pytest.mark.root, pytest.mark.tool("crun", "busybox", "newuidmap")]

DOCKERFILE = """FROM busybox
RUN mkdir -p /v/sub && touch /v/f && chown 9:9 /v/f && chown -R 77:78 /v/sub && chmod 700 /v/sub \
 && touch /v/sub/deep
VOLUME /v
"""


def test_owners_are_those_of_the_image_and_can_be_removed(lamina: OrdinaryLamina) -> None:
    lamina.write({"Dockerfile": DOCKERFILE})
    lamina("build", "-t", "made", ".")
    assert lamina("volume", "create", "one").stdout == "one\n"
    show = ("stat", "-c", "%u:%g:%a", "/v/f", "/v/sub")
    shown = lamina("run", "--rm", "-v", "one:/v", "made", *show).stdout.split()
    assert shown == ["9:9:644", "77:78:700"]
    data = lamina.store_seen / "volumes/one/_data"
    assert data.stat().st_uid == UID
    assert (data / "f").stat().st_uid == 600000 + 8
    (found,) = json.loads(lamina("volume", "inspect", "one").stdout)
    assert found["Mountpoint"] == f"{lamina.root}/volumes/one/_data"
    script = "touch /v/sub/mine && cat /v/sub/mine"
    lamina("run", "--rm", "--user=77", "-v", "one:/v", "made", "sh", "-c", script)
    rows = lamina("system", "df", "-v").stdout
    assert "one" in rows.split("Local Volumes space usage:")[1]
    assert lamina("volume", "rm", "one").stdout == "one\n"
    assert not data.exists()


def test_anonymous_volumes_and_subpaths_and_links(lamina: OrdinaryLamina) -> None:
    lamina.write({"Dockerfile": DOCKERFILE})
    lamina("build", "-t", "made", ".")
    lamina("run", "--rm", "made", "ls", "/v/sub/deep")
    volumes = lamina.store_seen / "volumes"
    assert os.listdir(volumes) == []
    lamina("create", "--name=it", "-v", "one:/v", "made", "true")
    mount = ("--rm", "--mount", "src=one,dst=/w,volume-subpath=sub")
    assert lamina("run", *mount, "busybox", "ls", "/w").stdout == "deep\n"
    lamina.write({"f": "in"})
    lamina("cp", "f", "it:/v/sub/f")
    assert lamina("run", *mount, "busybox", "cat", "/w/f").stdout == "in"
    os.symlink("/etc", volumes / "one/_data/out")
    bad = ("--rm", "--mount", "src=one,dst=/w,volume-subpath=out")
    failed = lamina("run", *bad, "busybox", "ls", "/w", check=False)
    assert failed.returncode == 125
    assert "cannot access path" in failed.stderr
    lamina("rm", "-v", "it")
    lamina("run", "-d", "--name=it", "-v", "one:/v", "made", "sleep", "600")
    lamina("cp", "f", "it:/v/sub/later")
    lamina("cp", "it:/v/sub/later", "got")
    assert (lamina.seen / "got").read_text() == "in"
    assert (volumes / "one/_data/sub/later").stat().st_uid == UID
    lamina("rm", "-fv", "it")
    lamina("volume", "prune", "-af")
    assert os.listdir(volumes) == []


def test_commands_on_volumes(lamina: OrdinaryLamina) -> None:
    for name in ("v1", "v2"):
        lamina("volume", "create", name)
    assert lamina("volume", "ls", "-q").stdout == "v1\nv2\n"
    assert lamina("volume", "rm", "v1", "v2").stdout == "v1\nv2\n"
