# SPDX-License-Identifier: Apache-2.0
"""A host of the test's own, a network on it, and a check that nothing stays."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from lamina.container.network import Network
from lamina.testing.network import BRIDGE, DirectoryDocuments, fresh_host, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NFT = shutil.which("nft")  # now: a test may change PATH


@pytest.fixture
def host() -> Iterator[None]:
    """The test's thread is in a network namespace that stands for a host."""
    with fresh_host():
        yield


@pytest.fixture
def documents(tmp_path: Path) -> DirectoryDocuments:
    return DirectoryDocuments(str(tmp_path / "documents"))


@pytest.fixture
def network(host: None, documents: DirectoryDocuments, tmp_path: Path) -> Iterator[Network]:
    """A network that must leave nothing behind when it is closed."""
    network = Network(
        documents, root=str(tmp_path), bridge=BRIDGE, lock_path=str(tmp_path / "lock")
    )
    descriptors = len(os.listdir("/proc/self/fd"))
    yield network
    network.close()
    assert run("ip -o link | grep -c -v -e lo: -e up0 || true").strip() == "0"
    assert BRIDGE not in run(f"{NFT} list ruleset")  # shows what iptables made, too
    assert documents.list("address") == []
    assert len(os.listdir("/proc/self/fd")) == descriptors
