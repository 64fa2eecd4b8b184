# SPDX-License-Identifier: Apache-2.0
"""Many processes on one root, and processes that are killed at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.manifest import Manifest
from lamina.store import LocalStore, open_store
from lamina.store.gc import collect
from lamina.store.layoutindex import read_index
from lamina.testing.sample import randomness, rounds
from lamina.testing.waiting import let_pass

# One writer: images whose layers are partly shared between all writers, named at the end, with the
# snapshots of their chains; now and then a name is deleted. `rounds` 0 means: until killed.
WRITER = """
import itertools, os, sys, threading
sys.path[:0] = eval(sys.argv[1])
from lamina.spec import mediatype
from lamina.spec.config import ImageConfig
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import DiffID, Digest
from lamina.spec.identity import chain_ids
from lamina.spec.manifest import Manifest
from lamina.store import open_store
from lamina.store.ports import CacheRecord

root, me, rounds = sys.argv[2], sys.argv[3], int(sys.argv[4])

def image(store, number, who):
    layers, diff_ids = [], []
    for depth in range(3):
        text = f"layer {depth} {'' if depth < 2 else who} {number % 5}".encode() * 500
        with store.content.ingest(f"layer {Digest.of(text)}") as ingest:
            if ingest.offset > len(text):
                ingest.restart()
            for start in range(ingest.offset, len(text), 1000):
                ingest.write(text[start:start + 1000])
            digest = ingest.commit(digest=Digest.of(text))
        blob = Descriptor(mediatype.OCI_LAYER, digest, len(text))
        store.metadata.put_layer(DiffID(digest), len(text), blob)
        layers.append(blob)
        diff_ids.append(DiffID(digest))
    parent = None
    for chain in chain_ids(diff_ids):
        with store.lock(f"chain:{chain}"):
            if not store.snapshots.exists(chain):
                try:
                    store.snapshots.remove(f"unpack:{chain}")
                except Exception:
                    pass
                mount = store.snapshots.prepare(f"unpack:{chain}", parent)
                with open(os.path.join(mount.upper, "file"), "w") as file:
                    file.write(str(chain))
                store.snapshots.commit(chain, f"unpack:{chain}")
        parent = chain
    config = ImageConfig("amd64", "linux", tuple(diff_ids)).serialise()
    store.content.add(config)
    manifest = Manifest.make(Descriptor.of(mediatype.OCI_CONFIG, config), layers)
    store.content.add(manifest.raw)
    key = Digest.of(manifest.raw)
    store.metadata.put_cache([CacheRecord(key, tuple(diff_ids), "{}", who, float(number))])
    store.metadata.set_names(
        [f"docker.io/library/{who}:t{number % 3}", "docker.io/library/shared:latest"],
        manifest.descriptor())
    if number % 4 == 3:
        store.metadata.delete_names([f"docker.io/library/{who}:t{(number + 1) % 3}"])

def work(thread):
    store = open_store(root)
    for number in itertools.count() if rounds == 0 else range(rounds):
        with store.lease("writer"):
            image(store, number, f"w{me}x{thread}")
        if number % 4 == 2 and thread == 0:
            from lamina.store.gc import collect
            collect(store, keep_cache=number % 8 == 2)
    store.close()

failures = []
def guarded(thread):
    try:
        work(thread)
    except BaseException as error:
        failures.append(error)
        raise
threads = [threading.Thread(target=guarded, args=(n,)) for n in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
sys.exit(1 if failures else 0)
"""


def start(root: str, me: int, *, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, repr(sys.path), root, str(me), str(rounds)],
        stderr=subprocess.PIPE,
        text=True,
    )


def check_whole(store: LocalStore) -> int:
    """Every name leads to verified blobs and to the snapshots of its chain; the number of names."""
    names = store.metadata.list_names()
    for named in names:
        manifest = Manifest.parse(store.content.read(named.target.digest, limit=MAX_DOCUMENT))
        store.content.verify(manifest.config.digest)
        for layer in manifest.layers:
            store.content.verify(layer.digest)
    for blob in store.content.walk():
        store.content.verify(blob.digest)
    for found in store.snapshots.walk():
        if found.committed:
            text = Path(store.snapshots.layer_dir(found.name), "file").read_text()
            assert text == found.name
    return len(names)


def test_processes_that_write_and_collect_at_once_end_with_whole_images(tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    writers = [start(root, me, rounds=9) for me in range(4)]  # they also race to make the store
    errors = [writer.communicate(timeout=100)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4, "\n".join(errors)
    store = open_store(root)
    assert check_whole(store) >= 4 * 2 * 2 + 1
    names = [(named.name, named.target) for named in store.metadata.list_names()]
    assert read_index(root) == names
    assert os.listdir(os.path.join(root, "ingest")) == []
    assert os.listdir(os.path.join(root, "leases")) == []
    store.close()


@pytest.mark.slow
@pytest.mark.sampled
def test_killed_writers_leave_a_store_that_opens_whole(tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    moments = randomness("kills of writers")
    for round_number in range(rounds(whole=25, sample=10)):
        writers = [start(root, me, rounds=0) for me in range(2)]
        let_pass(0.12 + moments.random() * 0.35)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        # a clock ahead: GC spares an ingest that was written to within the last second
        store = open_store(root, clock=lambda: time.time() + 5)
        check_whole(store)
        if round_number % 5 == 4:
            collect(store, keep_cache=False)
            assert set(os.listdir(os.path.join(root, "ingest"))) == set()
            assert os.listdir(os.path.join(root, "leases")) == []
            rows = store.database.read("SELECT count(*) FROM snapshots")[0][0]
            assert len(os.listdir(os.path.join(root, "snapshots"))) == rows
            check_whole(store)
            names = [(named.name, named.target) for named in store.metadata.list_names()]
            assert read_index(root) == names
        store.close()
    writer = start(root, 9, rounds=3)
    _, error = writer.communicate(timeout=60)
    assert writer.returncode == 0, error
