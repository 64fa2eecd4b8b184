# SPDX-License-Identifier: Apache-2.0
"""The local store keeps the contracts of its ports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.store import open_store
from lamina.store.ports import ContentStore, Snapshotter, Store
from lamina.testing.content_suite import ContentStoreContract
from lamina.testing.snapshot_suite import SnapshotterContract


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened: Store = open_store(str(tmp_path / "store"))
    yield opened
    opened.close()


@pytest.fixture
def content(store: Store) -> ContentStore:
    return store.content


@pytest.fixture
def snapshots(store: Store) -> Snapshotter:
    return store.snapshots


class TestLocalContent(ContentStoreContract):
    """On a directory."""


class TestLocalSnapshots(SnapshotterContract):
    """On a directory."""


class TestLocalContentUnderALease(ContentStoreContract):
    """Touching what is used changes nothing that the contract says."""

    @pytest.fixture
    def content(self, store: Store) -> Iterator[ContentStore]:
        with store.lease("test"):
            yield store.content


class TestLocalSnapshotsUnderALease(SnapshotterContract):
    """Touching what is used changes nothing that the contract says."""

    @pytest.fixture
    def snapshots(self, store: Store) -> Iterator[Snapshotter]:
        with store.lease("test"):
            yield store.snapshots
