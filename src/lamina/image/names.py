# SPDX-License-Identifier: Apache-2.0
"""Names of images: setting, moving, removing them, and images without one.

An image that has no name, or lost its last one because the name moved, is kept under a *dangling
name*: its target's digest as text (`sha256:...`), which no reference can be. So it is listed as
`<none>`, found by id, and safe from GC until it is removed, as in Docker.
"""

from __future__ import annotations

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.spec.descriptor import Descriptor
    from lamina.store.ports import NamedImage, Store


def is_dangling(name: str) -> bool:
    """Whether a stored name only keeps an unnamed image (references hold a slash)."""
    return "/" not in name


def dangling_name(target: Descriptor) -> str:
    """The name that keeps `target` while it has no other."""
    return str(target.digest)


class Names(Record):
    """All names of a store, read at once."""

    all: tuple[NamedImage, ...]

    def of(self, target: Descriptor) -> list[str]:
        """The references to `target`, sorted; a dangling name is none."""
        return [
            image.name
            for image in self.all
            if image.target.digest == target.digest and not is_dangling(image.name)
        ]


def read_names(store: Store) -> Names:
    """The names as they are now."""
    return Names(tuple(store.metadata.list_names()))


def set_names(store: Store, names: Sequence[str], target: Descriptor) -> None:
    """Point `names` (none: only keep it) to `target`, all or none.

    An image that loses its last name is kept as dangling. Nothing is written if every name points
    there already. A crash in between leaves at most a dangling name too many, which the next
    listing does not show.
    """
    wanted = list(names) or [dangling_name(target)]
    before = [store.metadata.get_name(name) for name in wanted]
    moved = [
        image.target
        for image in before
        if image is not None and image.target.digest != target.digest
    ]
    if not moved and all(image is not None for image in before):
        return
    if moved:
        _keep_orphans(store, moved, leaving=wanted)
    store.metadata.set_names(wanted, target)
    if names and store.metadata.get_name(dangling_name(target)) is not None:
        store.metadata.delete_names([dangling_name(target)])


def _keep_orphans(store: Store, targets: Sequence[Descriptor], *, leaving: Sequence[str]) -> None:
    gone = set(leaving)
    current = read_names(store)
    for target in targets:
        if not [name for name in current.of(target) if name not in gone]:
            store.metadata.set_names([dangling_name(target)], target)


def remove_names(store: Store, names: Sequence[str]) -> None:
    """Forget `names`; the image is not kept. Idempotent."""
    store.metadata.delete_names(names)
