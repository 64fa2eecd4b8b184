# SPDX-License-Identifier: Apache-2.0
"""A host of the test's own, a network on it, and a check that nothing stays."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lamina.container.network.attachment import Network
from lamina.store.local import open_store
from lamina.testing.network import BRIDGE, fresh_host, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
