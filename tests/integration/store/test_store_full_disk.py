# SPDX-License-Identifier: Apache-2.0
"""A filesystem with no byte free: clear errors, nothing half done, and GC that still works."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.errors import Kind, LaminaError
from lamina.spec import mediatype
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import ChainID, Digest
from lamina.store import open_store
from lamina.store.gc import collect
from lamina.system.mounts import tmpfs, unmount

pytestmark = pytest.mark.root

APP, OLD = "docker.io/library/app:latest", "docker.io/library/old:latest"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """A filesystem of 8 MiB."""
    (tmp_path / "disk").mkdir()
    tmpfs(str(tmp_path / "disk"), size=8 << 20)
    yield str(tmp_path / "disk")
    unmount(str(tmp_path / "disk"))


def fill(disk: str) -> None:
    """Write until not one byte is free."""
    with open(os.path.join(disk, "filler"), "ab", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass
    assert os.statvfs(disk).f_bavail == 0


def test_blob_that_does_not_fit_is_one_clear_error_and_leaves_no_blob(disk: str) -> None:
    store = open_store(disk + "/store")
    with store.content.ingest("big") as ingest, pytest.raises(LaminaError) as caught:
        for _ in range(100):
            ingest.write(os.urandom(1 << 20))
    assert caught.value.kind is Kind.EXHAUSTED
    assert "prune" in caught.value.hint
    assert list(store.content.walk()) == []
    os.utime(disk + "/store/ingest/" + os.listdir(disk + "/store/ingest")[0], (1, 1))
    assert collect(store).bytes > 1 << 20
    assert store.content.exists(store.content.add(b"fits again"))
    store.close()


def test_name_is_old_or_new_when_the_disk_is_full(disk: str) -> None:
    store = open_store(disk + "/store")
    old = Descriptor(mediatype.OCI_MANIFEST, store.content.add(b"old"), 3)
    new = Descriptor(mediatype.OCI_MANIFEST, store.content.add(b"new"), 3)
    store.metadata.set_names([APP], old)
    fill(disk)
    outcomes = set()
    for number in range(200):
        target = (new, old)[number % 2]
        before = store.metadata.get_name(APP)
        try:
            store.metadata.set_names([APP], target)
        except LaminaError as error:
            assert error.kind is Kind.EXHAUSTED  # noqa: PT017  # most attempts succeed
            assert store.metadata.get_name(APP) == before
            outcomes.add("refused")
            break
        named = store.metadata.get_name(APP)
        assert named is not None
        assert named.target == target
        fill(disk)
    assert outcomes == {"refused"}
    store.close()


@pytest.mark.parametrize("reopened", [False, True])
def test_removing_an_image_makes_room_on_a_full_disk(disk: str, *, reopened: bool) -> None:
    store = open_store(disk + "/store")
    layer = os.urandom(2 << 20)
    chain = ChainID(Digest.of(layer))
    with store.content.ingest("layer") as ingest:
        ingest.write(layer)
        blob = ingest.commit()
    mount = store.snapshots.prepare("unpack", None)
    with open(os.path.join(mount.upper, "file"), "wb") as file:
        file.write(os.urandom(2 << 20))
    store.snapshots.commit(chain, "unpack")
    store.metadata.set_names([OLD], Descriptor(mediatype.OCI_LAYER, blob, len(layer)))
    if reopened:
        store.close()
    fill(disk)
    if reopened:
        store = open_store(disk + "/store")
    with store.lease("rmi"):
        store.metadata.delete_names([OLD])
        collected = collect(store)
    assert (collected.blobs, collected.snapshots) == (1, 1)
    assert collected.bytes >= 4 << 20
    assert store.metadata.list_names() == []
    assert store.content.exists(store.content.add(b"room again"))
    store.close()


def test_snapshot_that_does_not_fit_leaves_no_row(disk: str) -> None:
    store = open_store(disk + "/store")
    fill(disk)
    store.reserve.release()
    fill(disk)
    with pytest.raises(LaminaError) as caught:
        for number in range(2000):
            store.snapshots.prepare(f"key {number}", None)
    assert caught.value.kind is Kind.EXHAUSTED
    os.unlink(disk + "/filler")
    count = len(list(store.snapshots.walk()))
    assert len([n for n in os.listdir(store.snapshots.directory) if n.isdecimal()]) <= count + 1
    store.close()
