# SPDX-License-Identifier: Apache-2.0
"""Stores of every format version ever released open with everything in them (stores/v*)."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from lamina.spec.digest import ChainID, DiffID, Digest
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.manifest import Manifest
from lamina.store import LocalStore, open_store
from lamina.store.local import VERSION

STORES = Path(__file__).parent / "stores"
LAYER = Digest.of(b"not a real tar")


def restore(kept: Path, root: Path) -> LocalStore:
    """The kept store as it was: git keeps no empty directories and no binary database."""
    shutil.copytree(kept, root)
    os.chmod(root, 0o700)
    for name in ("ingest", "locks", "leases", "unsynced", "containers", "snapshots/1/work"):
        (root / name).mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(root / "meta.sqlite")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript((root / "meta.sql").read_text())
    connection.close()
    (root / "meta.sql").unlink()
    return open_store(str(root))


def test_a_store_of_this_version_is_kept() -> None:
    assert (STORES / f"v{VERSION}").is_dir()


@pytest.mark.parametrize("version", sorted(path.name for path in STORES.iterdir()))
def test_kept_store_opens_with_everything_in_it(tmp_path: Path, version: str) -> None:
    store = restore(STORES / version, tmp_path / "store")
    (named,) = store.metadata.list_names()
    assert named.name == "docker.io/library/app:latest"
    manifest = Manifest.parse(store.content.read(named.target.digest, limit=MAX_DOCUMENT))
    assert [layer.digest for layer in manifest.layers] == [LAYER]
    assert store.snapshots.exists(ChainID(LAYER))
    assert os.listdir(store.snapshots.layer_dir(str(LAYER))) == ["file"]
    layer = store.metadata.get_layer(DiffID(LAYER))
    assert layer is not None
    assert layer.blobs == manifest.layers
    cached = store.metadata.get_cache([Digest.of(b"key")])
    assert cached is not None
    assert (cached.name, cached.result) == ("RUN make", (LAYER,))
    assert store.metadata.get_stat("/context") == b"stat"
    assert [document.name for document in store.documents.list("container")] == ["web"]
    assert Path(store.root, "lamina-store").read_text() == f"{VERSION}\n"
    store.close()
