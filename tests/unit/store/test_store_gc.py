# SPDX-License-Identifier: Apache-2.0
"""Garbage collection: what stays, what goes, and what a live lease holds back."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from lamina.spec import mediatype
from lamina.spec.config import ImageConfig
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import ChainID, DiffID, Digest, Stack
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.identity import chain_ids
from lamina.spec.manifest import Index, Manifest
from lamina.start.record import Record
from lamina.store import LocalStore
from lamina.store.copies import copied
from lamina.store.gc import Collected, collect
from lamina.store.ports import CacheRecord, Document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tests.unit.store.conftest import Clock, Notices

APP = "docker.io/library/app:latest"


class Image(Record):
    manifest: Descriptor
    config: Digest
    diff_ids: Stack
    chains: tuple[ChainID, ...]
    layers: tuple[Descriptor, ...]


def make_image(store: LocalStore, *layers: bytes) -> Image:
    """An image whose layers are blobs and snapshots."""
    diff_ids = tuple(DiffID(Digest.of(b"tar of " + layer)) for layer in layers)
    blobs = []
    for diff_id, layer in zip(diff_ids, layers, strict=True):
        blob = Descriptor(mediatype.OCI_LAYER_GZIP, store.content.add(layer), len(layer))
        store.metadata.put_layer(diff_id, 100, blob)
        blobs.append(blob)
    config = ImageConfig("amd64", "linux", diff_ids).serialise()
    described = Descriptor(mediatype.OCI_CONFIG, store.content.add(config), len(config))
    manifest = Manifest.make(described, blobs)
    store.content.add(manifest.raw)
    make_snapshots(store, diff_ids)
    return Image(
        manifest.descriptor(), described.digest, diff_ids, chain_ids(diff_ids), tuple(blobs)
    )


def make_snapshots(store: LocalStore, diff_ids: Stack) -> None:
    parent: ChainID | None = None
    for chain in chain_ids(diff_ids):
        if not store.snapshots.exists(chain):
            mount = store.snapshots.prepare(f"make {chain}", parent)
            with open(os.path.join(mount.upper, "file"), "wb") as file:
                file.write(b"x" * 10_000)
            store.snapshots.commit(chain, f"make {chain}")
        parent = chain


def is_whole(store: LocalStore, image: Image) -> bool:
    digests = [image.manifest.digest, image.config, *(layer.digest for layer in image.layers)]
    return all(store.content.exists(digest) for digest in digests) and all(
        store.snapshots.exists(chain) for chain in image.chains
    )


def is_gone(store: LocalStore, image: Image) -> bool:
    digests = [image.manifest.digest, image.config, *(layer.digest for layer in image.layers)]
    return not any(store.content.exists(digest) for digest in digests) and not any(
        store.snapshots.exists(chain) for chain in image.chains
    )


@contextmanager
def lease_elsewhere(store: LocalStore) -> Iterator[None]:
    """A lease held by another thread."""
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with store.lease("build"):
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_named_image_stays_whole(store: LocalStore, clock: Clock) -> None:
    image = make_image(store, b"one", b"two")
    store.metadata.set_names([APP], image.manifest)
    clock.advance(1)
    assert collect(store, keep_cache=False) == Collected(0, 0, 0)
    assert is_whole(store, image)


def test_image_without_a_name_goes_whole(store: LocalStore, clock: Clock) -> None:
    image = make_image(store, b"one", b"two")
    store.metadata.set_names([APP], image.manifest)
    store.metadata.delete_names([APP])
    clock.advance(1)
    collected = collect(store)
    assert (collected.blobs, collected.snapshots) == (4, 2)
    assert collected.bytes >= 2 * 10_000
    assert is_gone(store, image)
    assert store.metadata.get_layer(image.diff_ids[0]) is None
    assert os.listdir(store.snapshots.directory) == []


def test_shared_layers_stay_with_the_image_that_is_left(store: LocalStore, clock: Clock) -> None:
    base, derived = make_image(store, b"one"), make_image(store, b"one", b"two")
    store.metadata.set_names([APP], base.manifest)
    clock.advance(1)
    assert collect(store).snapshots == 1
    assert is_whole(store, base)
    assert not store.content.exists(derived.layers[1].digest)


def test_index_keeps_all_its_manifests(store: LocalStore, clock: Clock) -> None:
    one, two = make_image(store, b"one"), make_image(store, b"two")
    index = Index.make([one.manifest, two.manifest])
    store.content.add(index.raw)
    store.metadata.set_names([APP], index.descriptor())
    clock.advance(1)
    collect(store)
    assert is_whole(store, one)
    assert is_whole(store, two)


def test_cache_record_keeps_its_layers_until_the_cache_is_dropped(
    store: LocalStore, clock: Clock
) -> None:
    image = make_image(store, b"one", b"two")
    cached = CacheRecord(Digest.of(b"key"), image.diff_ids, "{}", "RUN", clock())
    store.metadata.put_cache([cached])
    clock.advance(1)
    collect(store)
    assert store.metadata.get_cache([cached.key]) == cached
    assert all(store.content.exists(layer.digest) for layer in image.layers)
    assert store.snapshots.exists(image.chains[1])
    clock.advance(10_000)
    collect(store, keep_cache=False)
    assert store.metadata.get_cache([cached.key]) is None
    assert is_gone(store, image)


@pytest.mark.parametrize("how", ["pins", "snapshot", "chain", "roots", "manifest", "config"])
def test_pinned_things_stay(store: LocalStore, clock: Clock, how: str) -> None:
    image = make_image(store, b"one", b"two")
    store.snapshots.prepare("container 1", image.chains[1])
    bodies = {
        "pins": '{"pins":["container 1"]}',
        "snapshot": '{"snapshot":"container 1"}',
        "chain": f'{{"chain":"{image.chains[1]}"}}',
        "manifest": f'{{"pins":["{image.manifest.digest}"]}}',
        "config": f'{{"pins":["{image.config}"]}}',
    }
    store.documents.insert(Document("container", "1", "web", bodies.get(how, "not JSON"), 1.0))
    clock.advance(1)
    collect(store, roots=["container 1"] if how == "roots" else [])
    assert all(store.snapshots.exists(chain) for chain in image.chains)
    keeps_layers = how in {"manifest", "config"}
    assert store.content.exists(image.layers[0].digest) == keeps_layers
    assert store.content.exists(image.manifest.digest) == (how == "manifest")


def test_snapshot_with_the_id_of_a_container_is_its_own(store: LocalStore, clock: Clock) -> None:
    store.snapshots.prepare("0123abcd", None)
    store.documents.insert(Document("container", "0123abcd", "web", '{"pins":[]}', 1.0))
    clock.advance(1)
    assert collect(store).snapshots == 0
    store.documents.delete("container", "0123abcd")
    assert collect(store).snapshots == 1


def test_dead_active_snapshot_goes(store: LocalStore, clock: Clock) -> None:
    mount = store.snapshots.prepare("vertex of a killed build", None)
    clock.advance(1)
    assert collect(store).snapshots == 1
    assert not os.path.exists(mount.upper)


def test_directories_without_a_row_and_stale_ingests_go(store: LocalStore, clock: Clock) -> None:
    for name in ("7", "8.rubbish.1", "9.deep.2"):
        os.makedirs(os.path.join(store.snapshots.directory, name, "fs", "a"))
    with store.content.ingest("killed pull") as ingest:
        ingest.write(b"x" * 5000)
    (name,) = os.listdir(os.path.join(store.root, "ingest"))
    os.utime(os.path.join(store.root, "ingest", name), (clock() - 5, clock() - 5))
    assert collect(store).bytes >= 5000
    assert os.listdir(store.snapshots.directory) == []
    assert os.listdir(os.path.join(store.root, "ingest")) == []


def test_ingest_that_nobody_holds_goes_at_once(store: LocalStore, clock: Clock) -> None:
    """Whatever else is at work, and however short ago it was broken off."""
    spool = os.path.join(store.root, "ingest", "tmpname")
    with lease_elsewhere(store):
        with store.content.ingest("broken pull") as ingest:
            ingest.write(b"x" * 5000)
        with open(spool, "wb"):
            os.utime(spool, (clock() + 5, clock() + 5))
        assert collect(store).bytes >= 5000
        assert os.listdir(os.path.join(store.root, "ingest")) == ["tmpname"]
        with store.content.ingest("broken pull") as ingest:
            assert ingest.offset == 0
    clock.advance(10)
    collect(store)
    assert os.listdir(os.path.join(store.root, "ingest")) == []


def test_ingest_being_written_stays(store: LocalStore, clock: Clock) -> None:
    with store.content.ingest("pull") as ingest:
        ingest.write(b"x")
        os.utime(os.path.join(store.root, "ingest", os.listdir(store.root + "/ingest")[0]), (1, 1))
        clock.advance(1)
        collect(store)
        assert ingest.commit() == Digest.of(b"x")


def test_what_is_made_while_a_lease_is_live_stays(store: LocalStore, clock: Clock) -> None:
    old = make_image(store, b"old")
    clock.advance(1)
    with lease_elsewhere(store):
        clock.advance(1)
        new = make_image(store, b"new")
        clock.advance(1)
        collect(store)
        assert is_gone(store, old)
        assert is_whole(store, new)
    collect(store)
    assert is_gone(store, new)


def test_old_things_used_under_a_live_lease_stay(store: LocalStore, clock: Clock) -> None:
    used, unused = make_image(store, b"used"), make_image(store, b"unused")
    clock.advance(1)
    with lease_elsewhere(store):
        clock.advance(1)
        assert is_whole(store, used)  # the use: some thread of the leasing process looks
        clock.advance(1)
        collect(store)
        assert is_whole(store, used)
    assert not store.content.exists(unused.layers[0].digest)


def test_image_named_when_a_lease_began_stays_though_its_name_is_deleted(
    store: LocalStore, clock: Clock
) -> None:
    image = make_image(store, b"one")
    store.metadata.set_names([APP], image.manifest)
    clock.advance(1)
    with lease_elsewhere(store):
        clock.advance(1)
        store.metadata.delete_names([APP])
        clock.advance(1)
        collect(store)
        store.metadata.set_names([APP], image.manifest)
    clock.advance(1)
    collect(store)
    assert is_whole(store, image)


def test_image_whose_name_moved_under_a_lease_stays_until_it_ends(
    store: LocalStore, clock: Clock
) -> None:
    first, second = make_image(store, b"one"), make_image(store, b"two")
    store.metadata.set_names([APP], first.manifest)
    clock.advance(1)
    with lease_elsewhere(store):
        store.metadata.set_names([APP], second.manifest)
        clock.advance(1)
        collect(store)
        assert is_whole(store, first)
    clock.advance(1)
    collect(store)
    assert is_gone(store, first)
    assert is_whole(store, second)


def test_cache_record_read_under_a_lease_outlives_dropping_the_cache(
    store: LocalStore, clock: Clock
) -> None:
    image = make_image(store, b"one")
    cached = CacheRecord(Digest.of(b"key"), image.diff_ids, "{}", "RUN", clock())
    store.metadata.put_cache([cached])
    clock.advance(1)
    with lease_elsewhere(store):
        assert store.metadata.get_cache([cached.key]) == cached
        clock.advance(1)
        collect(store, keep_cache=False)
        assert store.snapshots.exists(image.chains[0])
        assert store.content.exists(image.layers[0].digest)


def test_lease_of_the_collecting_thread_holds_nothing_back(store: LocalStore, clock: Clock) -> None:
    image = make_image(store, b"one")
    store.metadata.set_names([APP], image.manifest)
    clock.advance(1)
    with store.lease("rmi"):
        store.metadata.delete_names([APP])
        clock.advance(1)
        collect(store)
    assert is_gone(store, image)


def flip(store: LocalStore, digest: Digest) -> None:
    """Damage a blob as a disk does: no time changes."""
    path = store.content.path(digest)
    before = os.stat(path)
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        file.write(b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def forget_copies(store: LocalStore) -> None:
    store.database.write(lambda transaction: transaction.run("DELETE FROM state WHERE key > 'c'"))


def has_layers(store: LocalStore, image: Image) -> bool:
    return all(store.content.exists(layer.digest) for layer in image.layers) and all(
        store.snapshots.exists(chain) for chain in image.chains
    )


@pytest.mark.parametrize("what", ["manifest", "config", "manifest is gone", "config is gone"])
def test_damaged_document_keeps_what_it_needs_and_nothing_else(
    store: LocalStore, clock: Clock, notices: Notices, what: str
) -> None:
    image, other = make_image(store, b"one", b"two"), make_image(store, b"three")
    store.metadata.set_names([APP], image.manifest)
    digest = image.config if "config" in what else image.manifest.digest
    if "gone" in what:
        store.content.delete(digest)
    else:
        flip(store, digest)
    clock.advance(1)
    for _ in range(2):  # the copy outlives collections
        collect(store, emit=notices)
        assert has_layers(store, image)
        assert is_gone(store, other)
    told = [message for message in notices.messages if digest.hex in message]
    assert bool(told) == (what != "config is gone")  # it may never have been pulled
    store.metadata.delete_names([APP])
    clock.advance(1)
    collect(store)
    assert is_gone(store, image)
    assert copied(store.database) == frozenset()


@pytest.mark.parametrize("what", ["manifest", "config", "manifest is gone"])
def test_damaged_document_without_a_copy_is_reported_and_keeps_everything(
    store: LocalStore, clock: Clock, notices: Notices, what: str
) -> None:
    image, loose = make_image(store, b"one"), make_image(store, b"loose")
    store.metadata.set_names([APP], image.manifest)
    forget_copies(store)
    digest = image.config if what == "config" else image.manifest.digest
    if "gone" in what:
        store.content.delete(digest)
    else:
        flip(store, digest)
    clock.advance(1)
    collect(store, emit=notices)
    assert has_layers(store, image)
    assert is_whole(store, loose)
    assert any(digest.hex in message for message in notices.messages)
    store.metadata.delete_names([APP])
    clock.advance(1)
    collect(store)
    assert is_gone(store, image)
    assert is_gone(store, loose)


def test_damaged_copy_says_nothing(store: LocalStore, clock: Clock) -> None:
    image, loose = make_image(store, b"one"), store.content.add(b"loose")
    store.metadata.set_names([APP], image.manifest)
    store.database.write(
        lambda transaction: transaction.run("UPDATE state SET value = x'7b7d' WHERE key > 'c'")
    )
    flip(store, image.manifest.digest)
    clock.advance(1)
    collect(store)
    assert has_layers(store, image)
    assert store.content.exists(loose)


@pytest.mark.parametrize("room", [0, 1 << 60])
def test_copies_are_made_of_what_was_named_before_there_were_any(
    store: LocalStore, clock: Clock, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image(store, b"one")
    store.metadata.set_names([APP], image.manifest)
    forget_copies(store)
    monkeypatch.setattr("lamina.store.gc._ROOM", room)
    collect(store)
    wanted = {str(image.manifest.digest), str(image.config)} if not room else set()
    assert copied(store.database) == wanted


def test_config_that_is_too_large_keeps_its_image_and_nothing_else(
    store: LocalStore, clock: Clock, notices: Notices
) -> None:
    image, other = make_image(store, b"one", b"two"), make_image(store, b"three")
    document = json.loads(store.content.read(image.config, limit=MAX_DOCUMENT))
    raw = json.dumps(document | {"author": "x" * MAX_DOCUMENT}).encode()
    config = Descriptor(mediatype.OCI_CONFIG, store.content.add(raw), len(raw))
    manifest = Manifest.make(config, image.layers)
    store.content.add(manifest.raw)
    store.metadata.set_names([APP], manifest.descriptor())
    clock.advance(1)
    collect(store, emit=notices)
    assert store.content.exists(config.digest)
    assert has_layers(store, image)
    assert is_gone(store, other)
    assert any(config.digest.hex in message for message in notices.messages)


def test_manifest_of_another_kind_keeps_all_that_it_mentions(
    store: LocalStore, clock: Clock, notices: Notices
) -> None:
    image, other = make_image(store, b"one"), make_image(store, b"three")
    longer = Digest.of(b"four", algorithm="sha512")
    with store.content.ingest("four") as writing:
        writing.write(b"four")
        writing.commit(digest=longer, size=4)
    document = {
        "layers": [str(image.layers[0].digest), str(longer)],
        "config": {"digest": str(image.config)},
    }
    raw = json.dumps(document).encode()
    target = Descriptor(mediatype.OCI_MANIFEST, store.content.add(raw), len(raw))
    store.metadata.set_names([APP], target)
    clock.advance(1)
    collect(store, emit=notices)
    assert has_layers(store, image)
    assert store.content.exists(image.config)
    assert store.content.exists(longer)
    assert is_gone(store, other)
    assert any(target.digest.hex in message for message in notices.messages)


def test_blobs_that_a_name_needs_but_were_never_fetched_are_no_error(
    store: LocalStore, clock: Clock
) -> None:
    image = make_image(store, b"one")
    store.metadata.set_names([APP], image.manifest)
    store.content.delete(image.layers[0].digest)
    clock.advance(1)
    collect(store)
    assert store.content.exists(image.config)


def test_idle_lock_files_go(store: LocalStore) -> None:
    with store.lock("chain:a"):
        pass
    with store.lock("chain:b"):
        collect(store)
        assert len([n for n in os.listdir(store.root + "/locks") if len(n) == 64]) == 1


def test_reserve_is_filled_again(store: LocalStore) -> None:
    assert store.reserve.release()
    collect(store)
    assert store.reserve.release()


def test_another_store_on_the_root_sees_the_same(
    store: LocalStore, clock: Clock, open_again: Callable[[], LocalStore]
) -> None:
    image = make_image(store, b"one")
    clock.advance(1)
    collect(open_again())
    assert is_gone(store, image)
