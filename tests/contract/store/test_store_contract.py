# SPDX-License-Identifier: Apache-2.0
"""The local store keeps the contracts of its ports."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.errors import Kind, LaminaError
from lamina.layer.entry import Entry, EntryType
from lamina.layer.tarwrite import write_tar
from lamina.layer.wrap import wrap_layer
from lamina.store import open_store
from lamina.store.ports import ContentStore, Snapshotter, Store
from lamina.system.overlay import LayerImage, OverlayMount
from lamina.testing.content_suite import ContentStoreContract
from lamina.testing.snapshot_suite import ONE, SnapshotterContract


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


@pytest.mark.root
class TestLayersAsImages(SnapshotterContract):
    """Each layer an EROFS file."""

    @pytest.fixture
    def snapshots(self, tmp_path: Path) -> Iterator[Snapshotter]:
        store = open_store(str(tmp_path / "store"), layers=lambda: "erofs")
        yield store.snapshots
        store.close()

    def fill(self, snapshots: Snapshotter, key: str, mount: OverlayMount, name: str) -> None:
        tar = io.BytesIO()
        write_tar([(Entry(os.fsencode(name), EntryType.FILE, 0o644), b"")], tar.write)
        image = snapshots.image_for(key)
        assert image is not None
        tar.seek(0)
        root = wrap_layer(tar, image, expected=None, lowers=()).root
        os.chmod(mount.upper, root.mode)
        os.utime(mount.upper, ns=(root.mtime_ns, root.mtime_ns))

    def test_layer_is_a_file(self, snapshots: Snapshotter) -> None:
        self._commit(snapshots, ONE, None, "a")
        assert isinstance(snapshots.layer(str(ONE)), LayerImage)
        with pytest.raises(LaminaError) as caught:
            snapshots.layer_dir(str(ONE))
        assert caught.value.kind is Kind.UNSUPPORTED


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
