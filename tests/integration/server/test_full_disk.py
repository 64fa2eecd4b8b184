# SPDX-License-Identifier: Apache-2.0
"""A registry whose disk is full: one clear answer, nothing half stored, and it goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.testing.registry import RegistryServer, with_query


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    subprocess.run(words, check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.root
def test_full_disk_is_503_and_ends_when_there_is_room(small_disk: Path) -> None:
    with RegistryServer(small_disk / "registry") as server:
        client = server.client()
        client.push_image("r", "v1", b"small")
        location = client("POST", "/v2/r/blobs/uploads/").headers["location"]
        answer = client("PATCH", location, os.urandom(6 << 20))
        assert (answer.status, answer.code()) == (503, "UNAVAILABLE")
        assert str(small_disk) not in answer.body.decode()
        client = server.client()
        assert client("GET", "/v2/r/manifests/v1").status == 200
        assert client("DELETE", location).status == 204
        client.push_image("r", "v2", b"small again")
        assert client("PUT", with_query(location, "digest=sha256:" + "0" * 64)).status == 404
