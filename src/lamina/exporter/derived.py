# SPDX-License-Identifier: Apache-2.0
"""Layers that were made out of other layers (clamped, squashed), remembered so that an unchanged
image does not make them again. What is damaged or gone counts as never made.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.spec.digest import DiffID, Digest
from lamina.start.jsontext import dumps, loads
from lamina.store.ports import Document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.store.ports import Store

_FIELD = "diffID"


def derived_layer(store: Store, kind: str, key: str) -> DiffID | None:
    """The diffID that was noted, if the store has a blob of it; a note without one is removed."""
    document = store.documents.get(kind, key)
    if document is None:
        return None
    diff_id = _parse(document.body)
    layer = store.metadata.get_layer(diff_id) if diff_id is not None else None
    if layer is not None and any(store.content.exists(blob.digest) for blob in layer.blobs):
        return diff_id
    store.documents.delete(kind, key)
    return None


def note_derived(store: Store, kind: str, key: str, diff_id: DiffID) -> None:
    """Note the layer, unless another process was faster."""
    try:
        store.documents.insert(Document(kind, key, key, dumps({_FIELD: str(diff_id)}), 0.0))
    except LaminaError as error:
        if error.kind is not Kind.CONFLICT:
            raise


def _parse(body: str) -> DiffID | None:
    try:
        return DiffID(Digest.parse(loads(body)[_FIELD]))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, LaminaError):
        return None
