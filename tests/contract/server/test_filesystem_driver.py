# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lamina.errors import Kind, LaminaError
from lamina.server.database import VERSION
from lamina.server.filesystem import FilesystemStorage
from lamina.spec.digest import Digest
from lamina.testing.descriptors import opened_below
from lamina.testing.registry_suite import GRACE, Clock, RegistryStorageContract, push


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def storage(tmp_path: Path, clock: Clock) -> Iterator[FilesystemStorage]:
    storage = FilesystemStorage(str(tmp_path / "root"), clock=clock, grace=GRACE)
    yield storage
    storage.close()


class TestFilesystemStorage(RegistryStorageContract):
    """The directory driver keeps the contract."""


def test_doomed_link_is_not_leased(storage: FilesystemStorage, clock: Clock) -> None:
    """The request sees the collector, or the collector sees the request."""
    clock.now += 2 * GRACE
    digest = push(storage, "a")
    leases = storage.upkeep._leases
    key = ("a", str(digest))
    assert leases.doom([key]) == [key]
    assert storage.blobs.find("a", digest) is None
    assert leases.doom([key]) == []
    leases.spare([key])
    assert storage.blobs.find("a", digest) is not None


def test_after_a_start_nothing_goes_for_one_grace_period(tmp_path: Path, clock: Clock) -> None:
    first = FilesystemStorage(str(tmp_path / "r"), clock=clock, grace=GRACE)
    push(first, "a")
    first.close()
    clock.now += 10 * GRACE
    second = FilesystemStorage(str(tmp_path / "r"), clock=clock, grace=GRACE)
    assert second.upkeep.collect().links == 0
    clock.now += GRACE + 1
    assert second.upkeep.collect().links == 1
    second.close()


def test_file_without_row_goes_at_the_next_start(tmp_path: Path, clock: Clock) -> None:
    first = FilesystemStorage(str(tmp_path / "r"), clock=clock)
    kept = push(first, "a")
    orphan = first.upkeep._places.blob(str(Digest.of(b"torn")))
    Path(orphan).write_bytes(b"to")
    first.close()
    second = FilesystemStorage(str(tmp_path / "r"), clock=clock)
    assert not os.path.exists(orphan)
    assert second.blobs.find("a", kept) is not None
    second.close()


def test_scrub_finds_flipped_and_missing_bytes(storage: FilesystemStorage) -> None:
    whole, flipped, missing = (push(storage, "a", data) for data in (b"1", b"2", b"3"))
    place = storage.upkeep._places
    Path(place.blob(str(flipped))).write_bytes(b"x")
    os.unlink(place.blob(str(missing)))
    assert set(storage.upkeep.scrub()) == {str(flipped), str(missing)}
    assert str(whole) not in storage.upkeep.scrub()


def test_missing_or_short_blob_is_whole_again_after_a_push(storage: FilesystemStorage) -> None:
    digest = push(storage, "a")
    path = storage.upkeep._places.blob(str(digest))
    os.unlink(path)
    push(storage, "b")
    assert storage.upkeep.scrub() == []
    os.truncate(path, 1)
    push(storage, "b")
    assert storage.upkeep.scrub() == []


def test_questions_about_random_digests_cost_no_memory(storage: FilesystemStorage) -> None:
    for number in range(100):
        assert storage.blobs.find("a", Digest.of(b"%d" % number)) is None
    assert storage.upkeep._leases._renewed == {}


def test_upload_has_all_its_bytes_after_a_crash_before_the_row(
    tmp_path: Path, clock: Clock
) -> None:
    first = FilesystemStorage(str(tmp_path / "r"), clock=clock)
    session = first.uploads.start("a", user="")
    session.write(b"all of it")
    digest = Digest.of(b"all of it")
    place = Path(first.upkeep._places.blob(str(digest)))
    os.link(session._path, place)  # where commit is when the process is killed
    first.close()
    second = FilesystemStorage(str(tmp_path / "r"), clock=clock)
    assert not place.exists()
    again = second.uploads.open("a", session.id, user="")
    assert again.offset == len(b"all of it")
    again.commit(digest)
    assert place.read_bytes() == b"all of it"
    assert place.stat().st_nlink == 1
    second.close()


def test_upload_that_a_crash_left_beside_its_blob_cannot_change_it(
    storage: FilesystemStorage,
) -> None:
    session = storage.uploads.start("a", user="")
    session.write(b"blob")
    digest = Digest.of(b"blob")
    storage.blobs.adopt(session._path, repository="a", digest=digest, size=4)
    session.release()  # the process is killed before the session is removed
    again = storage.uploads.open("a", session.id, user="")
    again.write(b" and more")
    again.commit(Digest.of(b"blob and more"))
    assert storage.upkeep.scrub() == []
    assert Path(storage.upkeep._places.blob(str(digest))).read_bytes() == b"blob"


def write_noise(path: Path) -> None:
    path.write_bytes(b"\xde\xad" * 4096)


def write_newer_format(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={VERSION + 1}")
    connection.close()


@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        (write_noise, Kind.INTEGRITY, "is damaged: file is not a database"),
        (write_newer_format, Kind.UNSUPPORTED, f"format {VERSION + 1}"),
    ],
)
def test_database_that_cannot_be_used_is_an_error_and_is_closed(
    tmp_path: Path, damage: Callable[[Path], None], kind: Kind, words: str
) -> None:
    damage(tmp_path / "registry.sqlite")

    with pytest.raises(LaminaError, match=words) as caught:
        FilesystemStorage(str(tmp_path), clock=lambda: 0.0)

    assert caught.value.kind is kind
    assert opened_below(tmp_path) == []
