# SPDX-License-Identifier: Apache-2.0
"""What the directory content store adds to the contract: files, modes, torn and damaged blobs."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

import pytest

from lamina.errors import Kind, LaminaError
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import Digest
from lamina.store import LocalStore


def test_blob_is_a_read_only_file_named_by_its_digest(store: LocalStore) -> None:
    digest = store.content.add(b"blob")
    path = os.path.join(store.root, "blobs", "sha256", digest.hex)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o444
    assert os.listdir(os.path.join(store.root, "ingest")) == []


def test_blob_is_as_old_as_the_clock_says(store: LocalStore, clock: Callable[[], float]) -> None:
    assert store.content.info(store.content.add(b"blob")).created == clock()


def test_flipped_bit_is_an_integrity_error_that_names_the_blob(store: LocalStore) -> None:
    digest = store.content.add(b"blob")
    path = store.content.path(digest)
    os.chmod(path, 0o600)
    with open(path, "wb") as file:
        file.write(b"blab")
    for check in (
        lambda: store.content.read(digest, limit=9),
        lambda: store.content.verify(digest),
    ):
        with pytest.raises(LaminaError) as caught:
            check()
        assert caught.value.kind is Kind.INTEGRITY
        assert digest.hex in str(caught.value)


def test_torn_blob_is_replaced_by_a_whole_one(store: LocalStore) -> None:
    digest = store.content.add(b"blob")
    os.truncate(store.content.path(digest), 0)
    assert store.content.add(b"blob") == digest
    assert store.content.read(digest, limit=9) == b"blob"


def test_leftover_longer_than_expected_is_started_again(store: LocalStore) -> None:
    with store.content.ingest("ref") as first:
        first.write(b"much too long")
    expected = Descriptor("text/plain", Digest.of(b"short"), 5)
    with store.content.ingest("ref", expected=expected) as second:
        assert second.offset == 0


def test_small_leftover_of_a_dead_process_does_not_spoil_add(store: LocalStore) -> None:
    digest = Digest.of(b"blob")
    with store.content.ingest(f"add {digest}") as dead:
        dead.write(b"xx")
    assert store.content.add(b"blob") == digest


def test_full_disk_while_writing_is_exhausted_and_can_be_resumed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = os.write

    def short_then_full(fd: int, data: bytes) -> int:
        if len(data) <= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(fd, bytes(data)[:2])

    with store.content.ingest("ref") as ingest:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", short_then_full)
            with pytest.raises(LaminaError) as caught:
                ingest.write(b"blob")
        assert caught.value.kind is Kind.EXHAUSTED
        assert caught.value.hint
    with store.content.ingest("ref") as again:
        assert again.offset == 2
        again.write(b"ob")
        assert again.commit() == Digest.of(b"blob")


def test_strange_files_among_the_blobs_are_not_blobs(store: LocalStore) -> None:
    digest = store.content.add(b"blob")
    with open(os.path.join(store.root, "blobs", "sha256", "README"), "w", encoding="ascii"):
        pass
    assert [blob.digest for blob in store.content.walk()] == [digest]


def test_symlink_in_place_of_a_blob_is_not_followed(store: LocalStore) -> None:
    digest = Digest.of(b"root:x:0:0")
    os.symlink("/etc/passwd", store.content.path(digest))
    with pytest.raises(LaminaError):
        store.content.open(digest)
