# SPDX-License-Identifier: Apache-2.0
"""The bucket driver on a real S3 server process."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from lamina.errors import Kind, LaminaError
from lamina.server.objectstore.bucket import Location
from lamina.server.objectstore.storage import BucketStorage
from lamina.server.objectstore.uploads import HOLD, PIECE
from lamina.server.wire import Refusal
from lamina.spec.digest import Digest
from lamina.testing.objectstore import S3Server, faulty, s3_server
from lamina.testing.registry_suite import (
    GRACE,
    Clock,
    RegistryStorageContract,
    content,
    manifest,
    push,
)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage(s3: S3Server, clock: Clock) -> Iterator[BucketStorage]:
    storage = BucketStorage(s3.location(s3.bucket(), prefix="a/b"), clock=clock, grace=GRACE)
    yield storage
    storage.close()


class TestBucketStorage(RegistryStorageContract):
    """The bucket driver keeps the contract."""


@pytest.fixture
def pair(s3: S3Server, clock: Clock) -> Iterator[tuple[BucketStorage, BucketStorage]]:
    """Two processes' storages on one bucket."""
    location = s3.location(s3.bucket())
    first = BucketStorage(location, clock=clock, grace=GRACE)
    second = BucketStorage(location, clock=clock, grace=GRACE)
    yield first, second
    first.close()
    second.close()


def test_upload_goes_on_in_another_process_when_the_claim_has_run_out(
    pair: tuple[BucketStorage, BucketStorage], clock: Clock
) -> None:
    first, second = pair
    lost = first.uploads.start("a", user="u")
    lost.write(b"x" * PIECE)
    lost.write(b"in memory when the process dies")
    with pytest.raises(Refusal) as caught:
        second.uploads.open("a", lost.id, user="u")
    assert caught.value.code == "TOOMANYREQUESTS"
    clock.now += HOLD + 1
    taken = second.uploads.open("a", lost.id, user="u")
    assert taken.offset == PIECE
    with pytest.raises(Refusal) as caught:
        lost.write(b"y" * PIECE)  # it was only slow
    assert caught.value.code == "BLOB_UPLOAD_INVALID"
    lost.release()
    taken.write(b"z")
    digest = Digest.of(b"x" * PIECE + b"z")
    taken.commit(digest)
    found = first.blobs.find("a", digest)
    assert found is not None
    assert content(found) == b"x" * PIECE + b"z"
    second.upkeep.collect()
    assert second.upkeep.scrub() == []
    assert [entry.key for entry in second.uploads.bucket.list("uploads")] == []
    assert len(list(second.uploads.bucket.list("data"))) == 1  # the pieces are gone


def test_collector_between_a_look_and_the_swap_makes_the_push_look_again(
    pair: tuple[BucketStorage, BucketStorage], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pushing process stops for longer than the grace period, after it saw its blobs."""
    first, second = pair
    digest = push(first, "a")
    bucket = first.uploads.bucket
    write = bucket.put

    def stopped(key: str, data: bytes) -> None:
        monkeypatch.setattr(bucket, "put", write)
        clock.now += 2 * GRACE
        assert second.upkeep.collect().links == 1
        write(key, data)

    monkeypatch.setattr(bucket, "put", stopped)
    with pytest.raises(Refusal) as caught:
        first.manifests.put("a", manifest(digest), tags=["v1"])
    assert caught.value.code == "MANIFEST_BLOB_UNKNOWN"
    assert second.manifests.find("a", tag="v1") is None


def test_blob_named_by_head_in_one_process_is_kept_by_the_collector_of_another(
    pair: tuple[BucketStorage, BucketStorage], clock: Clock
) -> None:
    first, second = pair
    digest = push(first, "a")
    clock.now += GRACE / 2
    assert first.blobs.find("a", digest) is not None
    clock.now += GRACE - 1
    assert second.upkeep.collect().links == 0
    assert first.blobs.find("a", digest, keep=False) is not None  # a read promises nothing
    clock.now += 2
    assert second.upkeep.collect().blobs == 1


def test_pushes_of_two_processes_to_one_repository_all_arrive(
    pair: tuple[BucketStorage, BucketStorage],
) -> None:
    def work(number: int) -> None:
        storage = pair[number % 2]
        digest = push(storage, "a", b"%d" % number)
        storage.manifests.put("a", manifest(digest, raw=b"m%d" % number), tags=[f"v{number}"])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))
    for storage in pair:
        assert len(storage.manifests.tags("a", n=99, last="") or ()) == 16
        assert storage.upkeep.scrub() == []


def test_catalogue_is_in_order_of_names_and_pages(storage: BucketStorage) -> None:
    names = ["a", "a-b", "a.b", "a/b", "a/b/c", "a0", "b"]
    for name in names:
        storage.manifests.put(name, manifest())
    assert storage.manifests.repositories(n=99, last="") == names
    assert storage.manifests.repositories(n=2, last="a.b") == ["a/b", "a/b/c"]
    storage.manifests.remove("a/b", manifest().digest)
    assert storage.manifests.repositories(n=99, last="a.b") == ["a/b/c", "a0", "b"]


def test_damaged_bytes_are_found_and_healed_by_the_next_push(storage: BucketStorage) -> None:
    digest = push(storage, "a")
    bucket = storage.uploads.bucket
    (entry,) = bucket.list("data")
    bucket.put(entry.key, b"damaged!!")
    assert storage.upkeep.scrub() == [str(digest)]
    bucket.delete([entry.key])
    assert storage.upkeep.scrub() == [str(digest)]
    push(storage, "a")
    assert storage.upkeep.scrub() == []


def test_second_collector_leaves_the_work_to_the_first(
    pair: tuple[BucketStorage, BucketStorage], clock: Clock
) -> None:
    first, second = pair
    push(first, "a")
    clock.now += 2 * GRACE
    with first.upkeep._turn() as mine:
        assert mine
        assert second.upkeep.collect().links == 0
        clock.now += 1e6  # it died
        assert second.upkeep.collect().links == 1


def test_bucket_without_conditional_writes_is_refused(s3: S3Server, clock: Clock) -> None:
    with faulty(s3) as (faults, endpoint):
        faults.dropped = frozenset({"if-match", "if-none-match"})
        with pytest.raises(LaminaError, match="ignores conditions on writes") as caught:
            BucketStorage(s3.location(s3.bucket(), endpoint=endpoint), clock=clock)
    assert caught.value.kind is Kind.UNSUPPORTED


def test_lost_answers_do_not_undo_or_repeat_a_change(s3: S3Server, clock: Clock) -> None:
    """A swap that was done though its answer was a failure is seen as done."""
    location = s3.location(s3.bucket())
    storage = BucketStorage(location, clock=clock, grace=GRACE)
    bucket = storage.uploads.bucket
    swap = bucket.swap

    def lossy(key: str, data: bytes, *, expected: str) -> str | None:
        swap(key, data, expected=expected)
        return swap(key, data, expected=expected)  # as the library tries again

    bucket.swap = lossy  # type: ignore[method-assign]  # a fault
    digest = push(storage, "a", b"x" * (PIECE + 1))
    storage.manifests.put("a", manifest(digest), tags=["v1"])
    assert storage.manifests.tags("a", n=9, last="") == ["v1"]
    assert storage.manifests.untag("a", "v1")
    storage.close()


def test_no_credentials_in_a_location_that_is_printed(s3: S3Server) -> None:
    assert "the-secret-key" not in repr(s3.location("bucket"))
    assert "AKIATEST" not in str(s3.location("bucket"))


def test_credentials_and_endpoint_come_from_the_environment(
    s3: S3Server, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket()
    for name, text in (
        ("AWS_ACCESS_KEY_ID", "FROMENV"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", s3.endpoint),
    ):
        monkeypatch.setenv(name, text)
    storage = BucketStorage(Location(bucket, redirect=True), clock=clock)
    found = storage.blobs.find("a", push(storage, "a"))
    assert found is not None
    assert found.address is not None
    assert "FROMENV" in found.address()
    storage.close()
