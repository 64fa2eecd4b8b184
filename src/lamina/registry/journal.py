# SPDX-License-Identifier: Apache-2.0
"""Open uploads remembered in a store, so that a push goes on where a killed one stopped."""

from __future__ import annotations

import hashlib
import json

from lamina.registry.upload import OpenUpload
from lamina.store.ports import Document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.spec.digest import Digest
    from lamina.store.ports import Store


class StoreJournal:
    """Open uploads as documents of a store (upload.UploadJournal); those of a week ago go.

    Registries forget uploads too, most within a week.
    """

    KIND = "upload"
    _LIFE = 7 * 24 * 3600.0  # seconds; distribution purges uploads after 168 hours

    def __init__(self, store: Store, *, clock: Callable[[], float]) -> None:
        self._documents = store.documents
        self._clock = clock

    def get(self, repository: str, digest: Digest) -> OpenUpload | None:
        found = self._documents_get(repository, digest)
        if found is None:
            return None
        try:
            body = json.loads(found)
            return OpenUpload(str(body["url"]), int(body["offset"]))
        except (ValueError, KeyError, TypeError):
            return None  # a damaged record is none: the blob is uploaded anew

    def put(self, repository: str, digest: Digest, upload: OpenUpload) -> None:
        id = self._id(repository, digest)
        body = json.dumps({"url": upload.url, "offset": upload.offset})
        if self._documents.get(self.KIND, id) is not None:
            self._documents.update(self.KIND, id, body)
        else:
            self._documents.insert(Document(self.KIND, id, id, body, self._clock()))

    def forget(self, repository: str, digest: Digest) -> None:
        self._documents.delete(self.KIND, self._id(repository, digest))

    def sweep(self) -> None:
        """Drop records of uploads that no registry can still have."""
        for document in self._documents.list(self.KIND):
            if document.created < self._clock() - self._LIFE:
                self._documents.delete(self.KIND, document.id)

    def _documents_get(self, repository: str, digest: Digest) -> str | None:
        found = self._documents.get(self.KIND, self._id(repository, digest))
        return found.body if found is not None else None

    @staticmethod
    def _id(repository: str, digest: Digest) -> str:
        return hashlib.sha256(f"{repository}@{digest}".encode()).hexdigest()
