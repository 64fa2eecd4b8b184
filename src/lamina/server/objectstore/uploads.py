# SPDX-License-Identifier: Apache-2.0
"""Uploads that any process can go on with: a document `uploads/<id>` and pieces `data/<id>/<nonce>`.

    {"repository", "user", "algorithm", "pieces": [["data/...", size], ...],
     "holder": "<nonce>", "until": time}

A piece is written, then the document says that it belongs to the upload: the offset is what the
document says. Who writes holds a claim that lasts `HOLD` seconds and is renewed while bytes arrive;
after a kill -9 another request takes over when it has run out, and a writer that lost its claim
loses its next swap. One piece becomes the blob as it is; several are copied into one object and
hashed on the way, since a blob's GET is redirected to one address.

Nothing here deletes pieces: a piece may be a blob already. The collector does, when neither an
upload nor a record refers to them.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from contextlib import suppress

from lamina.errors import LaminaError
from lamina.server.objectstore.bucket import MIN_PART
from lamina.server.wire import RETRY, Refusal
from lamina.spec.document import dump, parse_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from lamina.server.objectstore.blobs import BucketBlobs
    from lamina.server.objectstore.bucket import Bucket
    from lamina.spec.digest import Digest

UPLOADS = "uploads"
DATA = "data"
HOLD = 10.0  # seconds
PIECE = MIN_PART  # bytes that a kill may lose, and that an upload holds in memory
_COUNTED = 30.0  # seconds for which the number of open uploads is believed
_AT_ONCE = 2  # copies of pieces into one object: each takes some 20 MiB


class BucketUploads:
    """The `Uploads` port."""

    def __init__(
        self,
        bucket: Bucket,
        blobs: BucketBlobs,
        *,
        clock: Callable[[], float],
        limit: int,
        hold: float = HOLD,
    ) -> None:
        self.bucket = bucket
        self.blobs = blobs
        self.clock = clock
        self.hold = hold
        self.copying = threading.Semaphore(_AT_ONCE)
        self._limit = limit
        self._guard = threading.Lock()
        self._held: set[str] = set()
        self._hashes: dict[str, tuple[str, int, Any]] = {}  # id: (algorithm, bytes hashed, hash)
        self._count = 0
        self._counted = float("-inf")

    def start(
        self, repository: str, *, user: str, algorithm: str = "sha256"
    ) -> BucketUploadSession:
        self._check_limit()
        id = secrets.token_urlsafe(32)
        document = {
            "repository": repository,
            "user": user,
            "algorithm": algorithm,
            "pieces": [],
        }
        session = BucketUploadSession(self, id, document, tag="")
        with self._guard:
            self._held.add(id)
            self._hashes[id] = (algorithm, 0, hashlib.new(algorithm))
        try:
            session.claim()
        except BaseException:
            self.let_go(id)
            raise
        return session

    def open(self, repository: str, id: str, *, user: str) -> BucketUploadSession:
        document, tag = self._find(repository, id, user=user)
        with self._guard:
            if id in self._held or document["until"] > self.clock():
                raise _busy()
            self._held.add(id)
        try:
            session = BucketUploadSession(self, id, document, tag=tag)
            session.claim()
        except BaseException:
            self.let_go(id)
            raise
        return session

    def offset(self, repository: str, id: str, *, user: str) -> int:
        document, _ = self._find(repository, id, user=user)
        return sum(size for _, size in document["pieces"])

    def expired(self, before: float) -> Iterator[str]:
        """Ids of uploads without a write since `before` that no request of this process holds."""
        for entry in self.bucket.list(UPLOADS):
            id = entry.key.removeprefix(f"{UPLOADS}/")
            if entry.modified < before and id not in self._held:
                yield id

    def discard(self, id: str) -> None:
        """Forget an upload. Idempotent."""
        with self._guard:
            self._hashes.pop(id, None)
            self._count = max(0, self._count - 1)
        self.bucket.delete([f"{UPLOADS}/{id}"])

    def let_go(self, id: str) -> None:
        """The request that held the upload has ended."""
        with self._guard:
            self._held.discard(id)

    def _check_limit(self) -> None:
        with self._guard:
            now = time.monotonic()
            if now - self._counted > _COUNTED:
                self._count = sum(1 for _ in self.bucket.list(UPLOADS))
                self._counted = now
            if self._count >= self._limit:
                self._counted = float("-inf")
                raise Refusal("TOOMANYREQUESTS", "too many uploads are open", headers=RETRY)
            self._count += 1

    def _find(self, repository: str, id: str, *, user: str) -> tuple[dict[str, Any], str]:
        """The upload's document and its entity tag, if it is this user's in this repository."""
        found = self.bucket.get(f"{UPLOADS}/{id}")
        if found is None:
            raise _no_such()
        document = parse_object(found.raw, what="upload")
        if document.get("repository") != repository or document.get("user") != user:
            raise _no_such()
        return document, found.tag


class BucketUploadSession:
    """An upload while a request holds it."""

    def __init__(
        self, uploads: BucketUploads, id: str, document: dict[str, Any], *, tag: str
    ) -> None:
        self.id = id
        self._uploads = uploads
        self._bucket = uploads.bucket
        self._document = document
        self._key = f"{UPLOADS}/{id}"
        self._tag = tag
        self._tail: list[bytes] = []
        self._tail_size = 0
        self._renewed = 0.0
        self._open = True
        self.offset = sum(size for _, size in document["pieces"])

    def claim(self) -> None:
        """Say that this request writes. Raises Refusal TOOMANYREQUESTS if another was first."""
        self._document["holder"] = secrets.token_hex(8)
        if not self._save():
            raise _busy()

    def write(self, data: bytes) -> None:
        known = self._uploads._hashes.get(self.id)
        if known is not None and known[1] == self.offset:
            known[2].update(data)
            self._uploads._hashes[self.id] = (known[0], self.offset + len(data), known[2])
        self._tail.append(data)
        self._tail_size += len(data)
        self.offset += len(data)
        if self._tail_size >= PIECE:
            self._flush()
        else:
            self._keep_claim()

    def cut(self, offset: int) -> None:
        self._uploads._hashes.pop(self.id, None)
        pieces = self._document["pieces"]
        durable = self.offset - self._tail_size
        tail = b"".join(self._tail)[: max(0, offset - durable)]
        while durable > offset:
            key, size = pieces.pop()
            durable -= size
            if durable < offset:
                tail = b"".join(self._bucket.read(key, offset=0, length=offset - durable))
        self._tail, self._tail_size, self.offset = [tail], len(tail), offset
        self._save_or_lose()

    def commit(self, digest: Digest) -> None:
        known = self._uploads._hashes.get(self.id)
        found = ""
        if known is not None and known[0] == digest.algorithm and known[1] == self.offset:
            found = known[2].hexdigest()
            self._check(digest, found)
        pieces = self._document["pieces"]
        if self._tail_size or not pieces:
            self._flush()
        key = pieces[0][0]
        if len(pieces) > 1 or not found:
            key = self._whole(digest)
        self._uploads.blobs.adopt(
            key, repository=self._document["repository"], digest=digest, size=self.offset
        )
        self._end()

    def cancel(self) -> None:
        if self._open:
            self._tail, self._tail_size = [], 0
            self._end()

    def release(self) -> None:
        if not self._open:
            return
        self._open = False
        try:
            with suppress(LaminaError):  # what is not there is asked for again by the client
                if self._tail_size:
                    self._flush()
                self._save(hold=False)
        finally:
            self._uploads.let_go(self.id)

    def _flush(self) -> None:
        """The tail becomes a piece of the upload."""
        data = b"".join(self._tail)
        self._tail, self._tail_size = [], 0
        key = f"{DATA}/{self.id}/{secrets.token_hex(8)}"
        try:
            self._bucket.put(key, data)
            self._document["pieces"].append([key, len(data)])
            self._save_or_lose()
        except BaseException:
            if self._document["pieces"] and self._document["pieces"][-1][0] == key:
                self._document["pieces"].pop()
            self.offset -= len(data)
            self._uploads._hashes.pop(self.id, None)
            raise

    def _whole(self, digest: Digest) -> str:
        """The key of one object with all the bytes, which have that digest."""
        pieces = self._document["pieces"]
        copying = len(pieces) > 1
        key = f"{DATA}/{self.id}/{secrets.token_hex(8)}" if copying else str(pieces[0][0])
        hasher = hashlib.new(digest.algorithm)
        with self._uploads.copying:
            writer = self._bucket.writer(key, size=self.offset) if copying else None
            for piece, size in pieces:
                for data in self._bucket.read(piece, offset=0, length=size):
                    hasher.update(data)
                    if writer is not None:
                        writer.write(data)
                self._keep_claim()
            if writer is not None:
                writer.close()
        self._check(digest, hasher.hexdigest())
        return key

    def _check(self, digest: Digest, found: str) -> None:
        if found == digest.hex:
            return
        self.cancel()
        raise Refusal(
            "DIGEST_INVALID",
            "the digest of the upload is not the digest that was given",
            detail={"digest": str(digest), "found": f"{digest.algorithm}:{found}"},
        )

    def _end(self) -> None:
        """Remove the document, if it is still this request's."""
        self._open = False
        try:
            if self._uploads.clock() - self._renewed < self._uploads.hold / 2 or self._save():
                self._uploads.discard(self.id)
        finally:
            self._uploads.let_go(self.id)

    def _keep_claim(self) -> None:
        if self._uploads.clock() - self._renewed > self._uploads.hold / 3:
            self._save_or_lose()

    def _save_or_lose(self) -> None:
        if not self._save():
            raise Refusal("BLOB_UPLOAD_INVALID", "another request goes on with this upload")

    def _save(self, *, hold: bool = True) -> bool:
        """Write the document; False if another request has claimed the upload, or it is gone."""
        now = self._uploads.clock()
        self._document["until"] = now + self._uploads.hold if hold else 0.0
        raw = dump(self._document)
        tag = self._bucket.swap(self._key, raw, expected=self._tag)
        if tag is None:
            found = self._bucket.get(self._key)
            if found is None or found.raw != raw:
                return False
            tag = found.tag  # it was done; the answer was lost
        self._tag, self._renewed = tag, now
        return True


def _no_such() -> Refusal:
    return Refusal("BLOB_UPLOAD_UNKNOWN", "no such upload")


def _busy() -> Refusal:
    return Refusal("TOOMANYREQUESTS", "another request writes to this upload", headers=RETRY)
