# SPDX-License-Identifier: Apache-2.0
"""Whatever is built, named, deleted and collected in whatever order: names stay whole, and after
the last GC nothing else is left.
"""

from __future__ import annotations

import os
import tempfile

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lamina.spec import mediatype
from lamina.spec.config import ImageConfig
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import ChainID, DiffID, Digest
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.identity import chain_ids
from lamina.spec.manifest import Manifest
from lamina.store import open_store
from lamina.store.gc import collect
from lamina.store.layoutindex import read_index

# each name is flushed to the disk: in memory that costs nothing
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
NAMES = st.sampled_from(["docker.io/library/a:1", "docker.io/library/a:2", "docker.io/x/b:1"])
STACKS = st.lists(st.sampled_from([b"one", b"two", b"three"]), min_size=1, max_size=3)


class Collecting(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(dir=MEMORY)
        self.now = 1000.0
        self.store = open_store(self.directory.name + "/store", clock=self.clock)
        self.model: dict[str, Manifest] = {}

    def clock(self) -> float:
        self.now += 1
        return self.now

    def teardown(self) -> None:
        collect(self.store, keep_cache=False)
        wanted = {manifest.descriptor().digest for manifest in self.model.values()}
        wanted |= {manifest.config.digest for manifest in self.model.values()}
        wanted |= {layer.digest for each in self.model.values() for layer in each.layers}
        assert {blob.digest for blob in self.store.content.walk()} == wanted
        self.store.close()
        self.directory.cleanup()

    def build(self, layers: list[bytes]) -> Manifest:
        blobs = [
            Descriptor(mediatype.OCI_LAYER, self.store.content.add(layer), len(layer))
            for layer in layers
        ]
        diff_ids = tuple(DiffID(blob.digest) for blob in blobs)
        for diff_id, blob in zip(diff_ids, blobs, strict=True):
            self.store.metadata.put_layer(diff_id, blob.size, blob)
        parent: ChainID | None = None
        for chain in chain_ids(diff_ids):
            if not self.store.snapshots.exists(chain):
                self.store.snapshots.prepare("key", parent)
                self.store.snapshots.commit(chain, "key")
            parent = chain
        config = ImageConfig("amd64", "linux", diff_ids).serialise()
        self.store.content.add(config)
        manifest = Manifest.make(Descriptor.of(mediatype.OCI_CONFIG, config), blobs)
        self.store.content.add(manifest.raw)
        return manifest

    @rule(layers=STACKS, name=NAMES)
    def build_and_name(self, layers: list[bytes], name: str) -> None:
        with self.store.lease("build"):
            manifest = self.build(layers)
            self.store.metadata.set_names([name], manifest.descriptor())
        self.model[name] = manifest

    @rule(layers=STACKS)
    def build_only(self, layers: list[bytes]) -> None:
        self.build(layers)

    @rule(name=NAMES, other=NAMES)
    def tag(self, name: str, other: str) -> None:
        if name in self.model:
            self.store.metadata.set_names([other], self.model[name].descriptor())
            self.model[other] = self.model[name]

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        self.store.metadata.delete_names([name])
        self.model.pop(name, None)

    @rule(keep_cache=st.booleans())
    def collect_garbage(self, *, keep_cache: bool) -> None:
        collect(self.store, keep_cache=keep_cache)

    @rule()
    def leave_an_ingest(self) -> None:
        with self.store.content.ingest(str(Digest.of(b"%f" % self.now))) as ingest:
            ingest.write(b"half")

    @invariant()
    def names_are_whole(self) -> None:
        found = {named.name: named.target for named in self.store.metadata.list_names()}
        assert found == {name: each.descriptor() for name, each in self.model.items()}
        assert dict(read_index(self.store.root)) == found
        for manifest in self.model.values():
            raw = self.store.content.read(manifest.config.digest, limit=MAX_DOCUMENT)
            assert all(
                self.store.snapshots.exists(chain)
                for chain in chain_ids(ImageConfig.parse(raw).diff_ids)
            )
            for layer in manifest.layers:
                self.store.content.verify(layer.digest)


TestCollecting = Collecting.TestCase
TestCollecting.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
