# SPDX-License-Identifier: Apache-2.0
"""A damaged or missing database is made again from what is left, and reported."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from lamina.spec import mediatype
from lamina.spec.config import ImageConfig
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import ChainID, DiffID, Digest
from lamina.spec.document import dump
from lamina.spec.manifest import Manifest
from lamina.store import LocalStore
from lamina.store.ports import Document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.unit.store.conftest import Notices

APP = "docker.io/library/app:latest"
LOST = "docker.io/library/lost:latest"
DIFF = DiffID(Digest.of(b"tar"))
CHAIN = ChainID(DIFF)


def fill(store: LocalStore) -> Descriptor:
    layer = Descriptor(mediatype.OCI_LAYER_GZIP, store.content.add(b"layer"), 5)
    config = ImageConfig("amd64", "linux", (DIFF,)).serialise()
    described = Descriptor(mediatype.OCI_CONFIG, store.content.add(config), len(config))
    manifest = Manifest.make(described, [layer])
    store.content.add(manifest.raw)
    store.metadata.put_layer(DIFF, 1234, layer)
    store.metadata.set_names([APP], manifest.descriptor())
    lost = dump({"not": "a manifest"})
    store.metadata.set_names(
        [LOST], Descriptor(mediatype.OCI_MANIFEST, store.content.add(lost), len(lost))
    )
    store.snapshots.prepare("unpack", None)
    store.snapshots.commit(CHAIN, "unpack")
    store.documents.insert(Document("container", "1", "web", "{}", 1.0))
    store.close()
    return manifest.descriptor()


def damage_everything(path: str) -> None:
    with open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        file.write(b"\xde\xad" * (size // 2))


def damage_the_name_table(path: str) -> None:
    """Page 2 is the root of the first table made: names."""
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)


def cut_short(path: str) -> None:
    os.truncate(path, 5000)


DAMAGES = [damage_everything, damage_the_name_table, cut_short, os.unlink]


@pytest.mark.parametrize("damage", DAMAGES)
def test_names_and_layers_come_back_from_index_and_blobs(
    store: LocalStore,
    open_again: Callable[[], LocalStore],
    notices: Notices,
    damage: Callable[[str], None],
) -> None:
    target = fill(store)
    damage(store.database.path)
    again = open_again()
    found = again.metadata.get_name(APP)
    assert found is not None
    assert found.target == target
    layer = again.metadata.get_layer(DIFF)
    assert layer is not None
    assert [blob.digest for blob in layer.blobs] == [Digest.of(b"layer")]
    assert len(notices.messages) == 1
    assert "rebuilt with 1 names" in notices.messages[0]


def test_name_whose_manifest_is_bad_is_not_set_again_and_reported(
    store: LocalStore, open_again: Callable[[], LocalStore], notices: Notices
) -> None:
    fill(store)
    os.unlink(store.database.path)
    again = open_again()
    assert [named.name for named in again.metadata.list_names()] == [APP]
    assert LOST in notices.messages[0]
    assert LOST not in _read(os.path.join(store.root, "index.json"))


def test_readable_rows_are_carried_over(
    store: LocalStore, open_again: Callable[[], LocalStore]
) -> None:
    fill(store)
    damage_the_name_table(store.database.path)
    again = open_again()
    assert again.metadata.get_name(APP) is not None
    assert [document.name for document in again.documents.list("container")] == ["web"]
    assert again.snapshots.exists(CHAIN)
    layer = again.metadata.get_layer(DIFF)
    assert layer is not None
    assert layer.size == 1234


def test_damaged_database_is_kept_beside(
    store: LocalStore, open_again: Callable[[], LocalStore]
) -> None:
    fill(store)
    damage_everything(store.database.path)
    open_again().metadata.list_names()
    assert os.path.exists(store.database.path + ".damaged")


def test_new_snapshots_do_not_take_a_directory_whose_row_was_lost(
    store: LocalStore, open_again: Callable[[], LocalStore]
) -> None:
    fill(store)
    kept = os.listdir(store.snapshots.directory)
    os.unlink(store.database.path)
    again = open_again()
    mount = again.snapshots.prepare("new", None)
    assert os.path.basename(os.path.dirname(mount.upper)) not in kept
    assert set(kept) <= set(os.listdir(store.snapshots.directory))


def test_store_that_was_open_meanwhile_uses_the_new_database(
    store: LocalStore, open_again: Callable[[], LocalStore]
) -> None:
    fill(store)
    bystander = open_again()
    bystander.metadata.list_names()
    damage_everything(store.database.path)
    open_again().metadata.list_names()
    bystander.metadata.put_stat("/x", b"1")
    assert open_again().metadata.get_stat("/x") == b"1"


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
