# SPDX-License-Identifier: Apache-2.0
"""A host of the test's own, a network on it, and a check that nothing stays."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lamina.container.network.attachment import Network
from lamina.store.local import open_store
from lamina.testing.busybox import Lamina, make_image, processes_of
from lamina.testing.network import BRIDGE, fresh_host, run
from lamina.testing.once import made_once
from lamina.testing.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.store.ports import Documents


@pytest.fixture
def host() -> Iterator[None]:
    """The test's thread is in a network namespace that stands for a host."""
    with fresh_host():
        yield


@pytest.fixture
def documents(tmp_path: Path) -> Iterator[Documents]:
    store = open_store(str(tmp_path / "store"))
    yield store.documents
    store.close()


@pytest.fixture
def network(host: None, documents: Documents, tmp_path: Path) -> Iterator[Network]:
    """A network that must leave nothing behind when it is closed."""
    network = Network(
        documents, root=str(tmp_path), bridge=BRIDGE, lock_path=str(tmp_path / "lock")
    )
    before = descriptors()
    yield network
    network.close()
    assert run("ip -o link | grep -c -v -e lo: -e up0 || true").strip() == "0"
    assert BRIDGE not in run("nft list ruleset")  # shows what iptables made, too
    assert documents.list("address") == []
    assert descriptors() == before


def descriptors() -> int:
    """How many sockets, pipes, namespaces and epolls this process holds (the store has files)."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the directory's own
            continue
        count += target.startswith(("socket:", "pipe:", "net:", "anon_inode:"))
    return count


@pytest.fixture(scope="session")
def bb_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds the image `bb`, unpacked, and knows its runtime."""

    def make(place: Path) -> None:
        make_image(str(place / "store"))
        Lamina(str(place / "store"))("run", "--rm", "--network=none", "bb", "true")

    return made_once(tmp_path_factory, "bb-network", make) / "store"


@pytest.fixture
def lamina(host: None, tmp_path: Path, bb_store: Path) -> Iterator[Lamina]:
    """The command line on a host of the test's own and a fresh store with the image `bb`; nothing of
    containers and networks may be left.
    """
    root = str(tmp_path / "store")
    subprocess.run(["cp", "-a", str(bb_store), root], check=True)
    command = Lamina(root)
    try:
        yield command
    finally:
        if names := command.out("ps", "-aq").split():
            command("rm", "-f", *names)
        command("network", "prune", "-f")
    assert command.directories() == []
    wait_until(lambda: processes_of(root) == [])
    assert run("ip -o link | grep -c -v -e lo: -e up0 || true").strip() == "0"
    assert run("nft list ruleset") == ""
    store = open_store(root)
    try:
        for kind in ("address", "endpoint", "network"):
            assert store.documents.list(kind) == [], kind
    finally:
        store.close()
