# SPDX-License-Identifier: Apache-2.0
"""The store as Source and Sink (ports), and a blob fetched into an ingest over broken transfers."""

from __future__ import annotations

import hashlib

from lamina.errors import Kind, LaminaError
from lamina.layer.compress import decompressed
from lamina.registry.transport import Unreachable
from lamina.spec import mediatype
from lamina.spec.digest import DiffID, Digest
from lamina.spec.document import MAX_DOCUMENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from lamina.registry.ports import Report, Source
    from lamina.spec.descriptor import Descriptor
    from lamina.store.ports import Ingest, Store
    from lamina.tasks import CancelToken

_CHUNK = 1024 * 1024
_MAX_FAILURES = 6  # in a row without a new byte
_FIRST_PAUSE = 0.5  # seconds


class StoreEnd:
    """A store as Source and Sink. The caller holds a lease.

    A layer that was taken is decompressed and hashed, and recorded under the diffID that it really
    has: no manifest's or config's claim is believed.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> IO[bytes]:
        return self._store.content.open(descriptor.digest, offset=offset)

    def document(self, descriptor: Descriptor) -> bytes:
        return self._store.content.read(descriptor.digest, limit=MAX_DOCUMENT)

    def exists(self, descriptor: Descriptor) -> bool:
        if not self._store.content.exists(descriptor.digest):
            return False
        return self._store.content.info(descriptor.digest).size == descriptor.size

    def put(
        self, descriptor: Descriptor, source: Source, *, report: Report, cancel: CancelToken
    ) -> None:
        self.fetch(descriptor, source, report=report, cancel=cancel)
        if mediatype.is_layer(descriptor.media_type):
            self.record_layer(descriptor, cancel)

    def put_document(self, descriptor: Descriptor, raw: bytes) -> None:
        if self.exists(descriptor):
            return
        with self._store.content.ingest(f"blob {descriptor.digest}", expected=descriptor) as ingest:
            ingest.write(raw[ingest.offset :])
            ingest.commit(digest=descriptor.digest, size=descriptor.size)

    def fetch(
        self, descriptor: Descriptor, source: Source, *, report: Report, cancel: CancelToken
    ) -> None:
        """Take the blob, verified, but do not look into it."""
        for fresh in (False, True):
            with self._store.content.ingest(
                f"blob {descriptor.digest}", expected=descriptor
            ) as ingest:
                if self.exists(descriptor):  # another process fetched it meanwhile
                    ingest.abort()
                    return
                resumed = ingest.offset > 0
                progress = self._watch(ingest, descriptor, report)
                download(ingest, descriptor, source, report=progress, cancel=cancel)
                try:
                    ingest.commit(digest=descriptor.digest, size=descriptor.size)
                except LaminaError as error:
                    # what an earlier process left may have been damaged: once more, from zero
                    if error.kind is not Kind.INTEGRITY or fresh or not resumed:
                        raise
                else:
                    return

    def _watch(self, ingest: Ingest, descriptor: Descriptor, report: Report) -> Report:
        """Who is told how far the download into `ingest` came; called before it begins."""
        return report

    def record_layer(self, descriptor: Descriptor, cancel: CancelToken) -> None:
        """Hash what the layer decompresses to and record it under that diffID."""
        hasher = hashlib.sha256()
        size = 0
        with self._store.content.open(descriptor.digest) as file:
            tar = decompressed(file)
            while data := tar.read(_CHUNK):
                cancel.check()
                hasher.update(data)
                size += len(data)
        diff_id = DiffID(Digest("sha256", hasher.hexdigest()))
        self._store.metadata.put_layer(diff_id, size, descriptor)


def download(
    ingest: Ingest,
    descriptor: Descriptor,
    source: Source,
    *,
    report: Report,
    cancel: CancelToken,
) -> None:
    """Fill the ingest to the descriptor's size, from where it stands; broken transfers go on.

    Raises:
        LaminaError: INTEGRITY if the source sends more than it should; else as `Source.open`.
    """
    failures = 0
    start = ingest.offset
    while ingest.offset < descriptor.size:
        before = ingest.offset
        try:
            with source.open(descriptor, offset=ingest.offset) as stream:
                while data := stream.read(min(_CHUNK, descriptor.size + 1 - ingest.offset)):
                    cancel.check()
                    ingest.write(data)
                    report(ingest.offset)
                    if ingest.offset > descriptor.size:
                        ingest.abort()
                        raise LaminaError(
                            f"more than {descriptor.size} bytes were sent", kind=Kind.INTEGRITY
                        )
            if ingest.offset < descriptor.size:
                raise Unreachable("the transfer ended early", transient=True)
        except Unreachable as error:
            failures = 1 if ingest.offset > before else failures + 1
            # who sent something comes back: a registry that restarts refuses connections for a while
            may_pass = error.transient or ingest.offset > start
            if not may_pass or failures >= _MAX_FAILURES:
                raise
            cancel.wait(_FIRST_PAUSE * 2 ** (failures - 1))
            cancel.check()
