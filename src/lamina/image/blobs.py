# SPDX-License-Identifier: Apache-2.0
"""Small steps with blobs that several modules of images need."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.store.ports import Ingest, Store


def fresh_ingest(store: Store, ref: str) -> Ingest:
    """An ingest that begins at zero, for bytes that are made anew and not fetched again."""
    ingest = store.content.ingest(ref)
    if ingest.offset == 0:
        return ingest
    with ingest:
        ingest.abort()  # left by a process that died
    return store.content.ingest(ref)
