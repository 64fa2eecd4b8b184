# SPDX-License-Identifier: Apache-2.0
"""Events of images in the store's event log, with what moby says of them."""

from __future__ import annotations

from lamina.errors import LaminaError
from lamina.image.view import Image
from lamina.start.record import replace
from lamina.store.eventlog import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.spec.descriptor import Descriptor
    from lamina.spec.reference import Reference
    from lamina.store.ports import Store


def tell_image(
    store: Store, action: str, target: Descriptor, *, names: Sequence[str] = ("",)
) -> None:
    """Note what was done to the image of a manifest or index, once for each name (empty: its id)."""
    id, labels = _id_and_labels(store, target)
    for name in names:
        note(store.root, "image", action, id, {**labels, "name": name or id})


def tell_transfer(store: Store, action: str, name: Reference, target: Descriptor) -> None:
    """Note a pull or a push, which moby tells of the name and not of the image."""
    bare = replace(name, tag="", digest=None).familiar()
    _, labels = _id_and_labels(store, target)
    note(store.root, "image", action, name.familiar(), {**labels, "name": bare})


def _id_and_labels(store: Store, target: Descriptor) -> tuple[str, dict[str, str]]:
    """Of an index, of its first image; of what is no image, the digest."""
    try:
        image = Image.open(store, target)
        return str(image.id), dict(image.config().config.labels)
    except LaminaError:
        return str(target.digest), {}
