# SPDX-License-Identifier: Apache-2.0
"""What every storage driver of the registry keeps to (registry.server.ports).

A test class inherits `RegistryStorageContract` and gives fixtures: `storage`, empty, whose grace
period is `GRACE` seconds of `clock`, a `Clock` that the test moves.
"""

from __future__ import annotations

import hashlib
import threading

import pytest

from lamina.server.ports import BlobFile, NewManifest, Storage
from lamina.server.wire import Refusal
from lamina.spec import mediatype
from lamina.spec.digest import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.server.ports import StoredBlob

GRACE = 100.0
DATA = b"some blob"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def push(storage: Storage, repository: str, data: bytes = DATA) -> Digest:
    """The digest of the blob, pushed."""
    session = storage.uploads.start(repository, user="")
    session.write(data)
    digest = Digest.of(data)
    session.commit(digest)
    return digest


def manifest(*blobs: Digest, raw: bytes = b"{}", **fields: object) -> NewManifest:
    """A manifest that needs the blobs."""
    return NewManifest(Digest.of(raw), mediatype.OCI_MANIFEST, raw, blobs=blobs, **fields)  # type: ignore[arg-type]  # test data


def content(found: StoredBlob) -> bytes:
    """The blob's bytes."""
    if isinstance(found, BlobFile):
        with open(found.path, "rb") as file:
            return file.read()
    return b"".join(found.read(0, found.size))


class RegistryStorageContract:
    """Inherit and give fixtures `storage` and `clock`."""

    def test_pushed_blob_is_found_in_its_repository_only(self, storage: Storage) -> None:
        digest = push(storage, "a")
        found = storage.blobs.find("a", digest)
        assert found is not None
        assert found.size == len(DATA)
        assert storage.blobs.find("b", digest) is None

    def test_mounted_blob_stays_when_the_source_removes_it(self, storage: Storage) -> None:
        digest = push(storage, "a")
        assert not storage.blobs.mount(digest, source="c", target="b")
        assert storage.blobs.mount(digest, source="a", target="b")
        assert storage.blobs.remove("a", digest)
        assert not storage.blobs.remove("a", digest)
        storage.upkeep.collect()
        assert storage.blobs.find("a", digest) is None
        assert storage.blobs.find("b", digest) is not None

    def test_session_is_of_one_repository_one_user_and_one_request(self, storage: Storage) -> None:
        session = storage.uploads.start("a", user="alice")
        with pytest.raises(Refusal) as caught:
            storage.uploads.open("a", session.id, user="alice")
        assert caught.value.code == "TOOMANYREQUESTS"
        session.write(b"12")
        session.release()
        for repository, user in (("b", "alice"), ("a", "bob"), ("a", "")):
            with pytest.raises(Refusal) as caught:
                storage.uploads.open(repository, session.id, user=user)
            assert caught.value.code == "BLOB_UPLOAD_UNKNOWN"
        assert storage.uploads.offset("a", session.id, user="alice") == 2
        again = storage.uploads.open("a", session.id, user="alice")
        assert again.offset == 2
        again.cancel()
        again.cancel()
        with pytest.raises(Refusal):
            storage.uploads.offset("a", session.id, user="alice")

    def test_cut_session_goes_on_from_there(self, storage: Storage) -> None:
        session = storage.uploads.start("a", user="")
        session.write(b"12345")
        session.cut(2)
        session.write(b"xyz")
        session.commit(Digest.of(b"12xyz"))
        assert storage.blobs.find("a", Digest.of(b"12xyz")) is not None

    def test_wrong_digest_ends_the_session(self, storage: Storage) -> None:
        session = storage.uploads.start("a", user="")
        session.write(b"x")
        with pytest.raises(Refusal) as caught:
            session.commit(Digest.of(b"y"))
        assert caught.value.code == "DIGEST_INVALID"
        with pytest.raises(Refusal):
            storage.uploads.open("a", session.id, user="")
        assert storage.blobs.find("a", Digest.of(b"y")) is None

    def test_any_algorithm_ends_a_session(self, storage: Storage) -> None:
        for started in ("sha256", "sha512"):
            session = storage.uploads.start("a", user="", algorithm=started)
            session.write(DATA)
            digest = Digest("sha512", hashlib.sha512(DATA).hexdigest())
            session.commit(digest)
            assert storage.blobs.find("a", digest) is not None

    def test_manifest_needs_its_blobs_in_its_repository(self, storage: Storage) -> None:
        blob = push(storage, "a")
        made = manifest(blob)
        with pytest.raises(Refusal) as caught:
            storage.manifests.put("b", made, tags=["v1"])
        assert caught.value.code == "MANIFEST_BLOB_UNKNOWN"
        assert storage.manifests.find("b", tag="v1") is None
        storage.manifests.put("a", made, tags=["v1"])
        found = storage.manifests.find("a", tag="v1")
        assert found is not None
        assert found.raw == made.raw
        assert storage.manifests.find("a", digest=str(made.digest)) == found
        assert storage.manifests.find("a", tag="V1") is None

    def test_removed_manifest_stays_in_other_repositories(self, storage: Storage) -> None:
        made = manifest()
        for repository in ("a", "b"):
            storage.manifests.put(repository, made, tags=["v1"])
        assert storage.manifests.remove("a", made.digest)
        assert not storage.manifests.remove("a", made.digest)
        assert storage.manifests.find("a", tag="v1") is None
        assert storage.manifests.find("b", tag="v1") is not None
        assert storage.manifests.tags("a", n=9, last="") is None
        assert storage.manifests.repositories(n=9, last="") == ["b"]

    def test_unused_blob_goes_after_the_grace_period(self, storage: Storage, clock: Clock) -> None:
        clock.now += GRACE
        digest = push(storage, "a")
        storage.upkeep.collect()
        clock.now += GRACE - 1
        assert storage.upkeep.collect().blobs == 0
        clock.now += 2
        found = storage.upkeep.collect(dry_run=True)
        assert found.links == 1
        assert storage.upkeep.collect().bytes == len(DATA)
        assert storage.blobs.find("a", digest) is None

    def test_asking_for_a_blob_keeps_it(self, storage: Storage, clock: Clock) -> None:
        """A client that hears yes to HEAD does not push: the blob must be there for its manifest."""
        clock.now += GRACE
        digest = push(storage, "a")
        clock.now += GRACE + 1
        assert storage.blobs.find("a", digest) is not None
        clock.now += GRACE - 1
        assert storage.upkeep.collect().links == 0
        storage.manifests.put("a", manifest(digest), tags=["v1"])
        clock.now += 10 * GRACE
        assert storage.upkeep.collect().links == 0

    def test_blob_pushed_again_is_young_again(self, storage: Storage, clock: Clock) -> None:
        clock.now += GRACE
        push(storage, "a")
        clock.now += GRACE + 1
        push(storage, "a")
        assert storage.upkeep.collect().links == 0

    def test_blobs_of_a_removed_manifest_go(self, storage: Storage, clock: Clock) -> None:
        made = manifest(push(storage, "a"))
        storage.manifests.put("a", made, tags=["v1"])
        clock.now += 2 * GRACE
        assert storage.upkeep.collect().blobs == 0
        storage.manifests.remove("a", made.digest)
        assert storage.upkeep.collect().blobs == 1

    def test_untagged_manifests_go_only_if_asked_and_needed_by_nothing(
        self, storage: Storage, clock: Clock
    ) -> None:
        child, kept = manifest(raw=b"1"), manifest(raw=b"2")
        lone = manifest(raw=b"3")
        signature = manifest(raw=b"4", subject=str(kept.digest))
        orphan = manifest(raw=b"5", subject=str(Digest.of(b"nothing")))
        for made in (child, lone, signature, orphan):
            storage.manifests.put("a", made)
        storage.manifests.put("a", kept, tags=["v1"])
        index = NewManifest(Digest.of(b"6"), mediatype.OCI_INDEX, b"6", manifests=(child.digest,))
        storage.manifests.put("a", index, tags=["index"])
        clock.now += 50
        assert storage.upkeep.collect().manifests == 0
        assert storage.upkeep.collect(untagged_after=60).manifests == 0
        assert storage.upkeep.collect(untagged_after=40, dry_run=True).manifests == 2
        assert storage.upkeep.collect(untagged_after=40).manifests == 2
        for made, there in ((child, 1), (kept, 1), (signature, 1), (lone, 0), (orphan, 0)):
            assert (storage.manifests.find("a", digest=str(made.digest)) is not None) == there

    def test_abandoned_upload_goes(self, storage: Storage, clock: Clock) -> None:
        session = storage.uploads.start("a", user="")
        session.release()
        held = storage.uploads.start("a", user="")
        clock.now = 1e12  # files carry the time of the real clock
        assert storage.upkeep.collect().uploads == 1
        held.cancel()

    def test_same_blob_from_many_threads_beside_the_collector(
        self, storage: Storage, clock: Clock
    ) -> None:
        clock.now += 2 * GRACE
        failures: list[BaseException] = []
        stop = threading.Event()

        def collect() -> None:
            while not stop.is_set():
                storage.upkeep.collect()

        def work(number: int) -> None:
            try:
                for round_ in range(10):
                    digest = push(storage, "a")
                    raw = b"%d %d" % (number, round_)
                    storage.manifests.put("a", manifest(digest, raw=raw))
                    found = storage.blobs.find("a", digest)
                    assert found is not None
                    assert content(found) == DATA
            except BaseException as error:  # noqa: BLE001  # handed to the test
                failures.append(error)

        collector = threading.Thread(target=collect)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in (collector, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        collector.join()
        assert failures == []
        assert storage.upkeep.scrub() == []
