# SPDX-License-Identifier: Apache-2.0
"""What every content store keeps to (store.ports.ContentStore).

A test class inherits `ContentStoreContract` and gives a fixture `content`: an empty store.
"""

from __future__ import annotations

import threading

import pytest

from lamina.errors import Kind, LaminaError
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.store.ports import ContentStore

HELLO = b"hello, blob"


class ContentStoreContract:
    """Inherit and give a fixture `content`."""

    def test_added_blob_is_found_and_reads_back(self, content: ContentStore) -> None:
        digest = content.add(HELLO)
        assert digest == Digest.of(HELLO)
        assert content.exists(digest)
        assert content.read(digest, limit=100) == HELLO
        assert content.info(digest).size == len(HELLO)

    def test_opening_at_an_offset_skips_the_bytes_before(self, content: ContentStore) -> None:
        with content.open(content.add(HELLO), offset=7) as file:
            assert file.read() == HELLO[7:]

    def test_missing_blob_is_not_found(self, content: ContentStore) -> None:
        missing = Digest.of(b"missing")
        assert not content.exists(missing)
        for access in (
            lambda: content.open(missing),
            lambda: content.read(missing, limit=1),
            lambda: content.info(missing),
        ):
            with pytest.raises(LaminaError) as caught:
                access()
            assert caught.value.kind is Kind.NOT_FOUND
            assert missing.hex in str(caught.value)

    def test_reading_more_than_the_limit_is_refused(self, content: ContentStore) -> None:
        digest = content.add(HELLO)
        with pytest.raises(LaminaError) as caught:
            content.read(digest, limit=len(HELLO) - 1)
        assert caught.value.kind is Kind.INVALID

    def test_ingest_is_invisible_until_committed(self, content: ContentStore) -> None:
        with content.ingest("layer") as ingest:
            ingest.write(HELLO)
            assert not content.exists(Digest.of(HELLO))
            assert list(content.walk()) == []
            assert ingest.commit() == Digest.of(HELLO)
        assert content.exists(Digest.of(HELLO))

    def test_ingest_left_without_commit_is_resumed(self, content: ContentStore) -> None:
        with content.ingest("layer") as first:
            first.write(HELLO[:5])
        with content.ingest("layer") as second:
            assert second.offset == 5
            second.write(HELLO[5:])
            assert second.commit(digest=Digest.of(HELLO), size=len(HELLO)) == Digest.of(HELLO)

    def test_aborted_ingest_starts_again_from_nothing(self, content: ContentStore) -> None:
        with content.ingest("layer") as first:
            first.write(b"garbage")
            first.abort()
            first.abort()
        with content.ingest("layer") as second:
            assert second.offset == 0

    @pytest.mark.parametrize(
        ("digest", "size"), [(Digest.of(b"other"), None), (None, len(HELLO) + 1)]
    )
    def test_mismatch_at_commit_is_an_integrity_error_and_removes_the_ingest(
        self, content: ContentStore, digest: Digest | None, size: int | None
    ) -> None:
        with content.ingest("layer") as ingest:
            ingest.write(HELLO)
            with pytest.raises(LaminaError) as caught:
                ingest.commit(digest=digest, size=size)
        assert caught.value.kind is Kind.INTEGRITY
        assert not content.exists(Digest.of(HELLO))
        with content.ingest("layer") as again:
            assert again.offset == 0

    def test_expected_descriptor_is_checked_at_commit(self, content: ContentStore) -> None:
        expected = Descriptor("text/plain", Digest.of(HELLO), len(HELLO))
        with content.ingest("layer", expected=expected) as ingest:
            ingest.write(b"hello, lie!")
            with pytest.raises(LaminaError) as caught:
                ingest.commit()
        assert caught.value.kind is Kind.INTEGRITY
        with content.ingest("layer", expected=expected) as ingest:
            ingest.write(HELLO)
            assert ingest.commit() == expected.digest

    def test_blob_may_be_named_by_sha512(self, content: ContentStore) -> None:
        digest = Digest.of(HELLO, algorithm="sha512")
        with content.ingest("layer") as ingest:
            ingest.write(HELLO)
            assert ingest.commit(digest=digest) == digest
        assert content.read(digest, limit=100) == HELLO

    def test_committing_a_blob_that_exists_keeps_one(self, content: ContentStore) -> None:
        content.add(HELLO)
        with content.ingest("again") as ingest:
            ingest.write(HELLO)
            ingest.commit()
        assert [blob.digest for blob in content.walk()] == [Digest.of(HELLO)]

    def test_deleted_blob_is_gone_and_deleting_again_is_no_error(
        self, content: ContentStore
    ) -> None:
        digest = content.add(HELLO)
        content.delete(digest)
        content.delete(digest)
        assert not content.exists(digest)

    def test_walk_gives_every_blob(self, content: ContentStore) -> None:
        added = {content.add(b"blob %d" % number) for number in range(20)}
        assert {blob.digest for blob in content.walk()} == added

    def test_second_writer_of_a_ref_waits_for_the_first(self, content: ContentStore) -> None:
        offsets: list[int] = []

        def write_second() -> None:
            with content.ingest("layer") as second:
                offsets.append(second.offset)

        with content.ingest("layer") as first:
            first.write(HELLO)
            thread = threading.Thread(target=write_second)
            thread.start()
            assert offsets == []
            first.commit()
        thread.join()
        assert offsets == [0]
