# SPDX-License-Identifier: Apache-2.0
"""Who holds which blob: documents `index/<algorithm>/<hhh>`, one for each three digits of a digest.

    {"<hex>": {"key": "data/...", "size": 123, "in": {"<repository>": renewed}}, ...}

A link is *renewed* when it is made and, before it is an eighth of the grace period old, each time a
client is told that it exists or pushes a manifest that needs it. The collector removes only links
that are older than the whole period, each by compare and swap.
"""

from __future__ import annotations

from functools import partial

from lamina.server.ports import BlobStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lamina.server.objectstore.bucket import Bucket
    from lamina.server.objectstore.documents import Document, Documents
    from lamina.spec.digest import Digest

RENEWAL = 8  # a link is renewed when it is older than this part of the grace period
INDEX = "index"


def shelf(digest: str) -> str:
    """The key of the document that has the blob's record."""
    algorithm, _, hex_digits = digest.partition(":")
    return f"{INDEX}/{algorithm}/{hex_digits[:3]}"


class BucketBlobs:
    """The `Blobs` port."""

    def __init__(
        self,
        bucket: Bucket,
        index: Documents,
        *,
        clock: Callable[[], float],
        grace: float,
        redirect: bool,
    ) -> None:
        self._bucket = bucket
        self._index = index
        self._clock = clock
        self._fresh = grace / RENEWAL
        self._redirect = redirect

    def find(self, repository: str, digest: Digest, *, keep: bool = True) -> BlobStream | None:
        record = self._record(repository, digest)
        if record is None:
            return None
        if keep and not self.renew(repository, digest, record):
            return None
        key = record["key"]

        def read(offset: int, length: int) -> Iterator[bytes]:
            return self._bucket.read(key, offset=offset, length=length)

        address = partial(self._bucket.address, key) if self._redirect else None
        return BlobStream(record["size"], read, address)

    def renew(self, repository: str, digest: Digest, record: Document | None = None) -> bool:
        """Whether the repository holds the blob; its link is then young."""
        if record is None:
            record = self._record(repository, digest)
            if record is None:
                return False
        now = self._clock()
        if now - record["in"][repository] < self._fresh:
            return True

        def change(document: Document) -> bool:
            holders = document.get(digest.hex, {}).get("in", {})
            if repository not in holders:
                return False
            holders[repository] = max(now, holders[repository])
            return True

        return self._index.update(shelf(str(digest)), change)

    def mount(self, digest: Digest, *, source: str, target: str) -> bool:
        def change(document: Document) -> bool:
            holders = document.get(digest.hex, {}).get("in", {})
            if source not in holders:
                return False
            holders[target] = self._clock()
            return True

        return self._index.update(shelf(str(digest)), change)

    def holders(self, digest: Digest) -> Sequence[str]:
        record = self._index.read(shelf(str(digest))).get(digest.hex, {})
        return sorted(record.get("in", {}))[:100]

    def remove(self, repository: str, digest: Digest) -> bool:
        def change(document: Document) -> bool:
            holders = document.get(digest.hex, {}).get("in", {})
            return holders.pop(repository, None) is not None

        return self._index.update(shelf(str(digest)), change)

    def adopt(self, key: str, *, repository: str, digest: Digest, size: int) -> None:
        """Make the object, whose digest was checked, a blob of the repository.

        If the blob is there already, and whole, its bytes stay and the object is in vain.
        """

        def change(document: Document) -> None:
            record = document.setdefault(digest.hex, {"key": key, "size": size, "in": {}})
            if record["key"] != key and self._bucket.size(record["key"]) != size:
                record["key"], record["size"] = key, size
            record["in"][repository] = self._clock()

        self._index.update(shelf(str(digest)), change)

    def _record(self, repository: str, digest: Digest) -> Document | None:
        record: Document | None = self._index.read(shelf(str(digest))).get(digest.hex)
        return record if record is not None and repository in record["in"] else None
