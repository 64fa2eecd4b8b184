# SPDX-License-Identifier: Apache-2.0
"""Names of images: setting and moving them, and images without one.

An image that has no name, or lost its last one because the name moved, is kept under a *dangling
name*: its target's digest as text (`sha256:...`), which no reference can be. So it is listed as
`<none>`, found by id, and safe from GC until it is removed, as in Docker. A manifest whose images
are in the one that the name moved to, too, is not kept: it is the same image, packed in another way.
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

    An image that loses its last name is kept as dangling, unless `target` holds it, too. Nothing is
    written if every name points there already. A crash in between leaves at most a dangling name too
    many, which the next listing does not show.
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
        keep_orphans(store, moved, leaving=wanted, target=target)
    store.metadata.set_names(wanted, target)
    if names and store.metadata.get_name(dangling_name(target)) is not None:
        store.metadata.delete_names([dangling_name(target)])


def keep_orphans(
    store: Store, targets: Sequence[Descriptor], *, leaving: Sequence[str], target: Descriptor
) -> None:
    """Keep as dangling what has no name but those in `leaving`, which move to `target`, and has
    images that are not in `target`.
    """
    from lamina.image.ids import image_ids, is_spare

    gone = set(leaving)
    current = read_names(store)
    orphans = [old for old in targets if not [name for name in current.of(old) if name not in gone]]
    kept = {id for id, _ in image_ids(store, target)} if orphans else ()
    for old in orphans:
        if not is_spare(store, old, kept):
            store.metadata.set_names([dangling_name(old)], old)
