# SPDX-License-Identifier: Apache-2.0
"""Image ids: which images the names of a store keep, whatever manifests they are in.

An image id is the digest of a config. The same image can be in several manifests: compressed in
another way, annotated, or in an index with others. What is removed is therefore decided by ids and
done by names and the digests of their manifests.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.image.names import is_dangling
from lamina.spec import mediatype
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.manifest import ATTESTATION, MAX_ENTRIES, Index, Manifest
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from lamina.spec.descriptor import Descriptor
    from lamina.spec.digest import Digest
    from lamina.store.ports import NamedImage, Store


class Held(Record):
    """A stored name, and the ids of the images that it keeps; `is_whole` is False if something
    behind it is damaged, so that there may be more.
    """

    named: NamedImage
    ids: tuple[Digest, ...]
    is_whole: bool

    @property
    def is_dangling(self) -> bool:
        """Whether the name only keeps an unnamed image."""
        return is_dangling(self.named.name)

    def is_spare(self, kept: Collection[Digest]) -> bool:
        """Whether nothing is lost with the name: all its images are among `kept`."""
        return self.is_whole and bool(self.ids) and all(id in kept for id in self.ids)


def held_names(store: Store) -> list[Held]:
    """What every name keeps, sorted by name."""
    return [_held(store, named) for named in store.metadata.list_names()]


def is_spare(store: Store, target: Descriptor, kept: Collection[Digest]) -> bool:
    """Whether every image behind `target` is among `kept`."""
    from lamina.store.ports import NamedImage

    return _held(store, NamedImage("", target, 0.0)).is_spare(kept)


def ids_of(held: Collection[Held]) -> set[Digest]:
    """All the ids of some names."""
    return {id for each in held for id in each.ids}


def image_ids(store: Store, target: Descriptor) -> Iterator[tuple[Digest, Descriptor]]:
    """(image id, manifest) of each image behind a target; missing or broken ones are left out."""
    for manifest, found in _walk(store, target):
        if not isinstance(found, LaminaError):
            yield found, manifest


def _held(store: Store, named: NamedImage) -> Held:
    ids = []
    is_whole = True
    for manifest, found in _walk(store, named.target):
        if not isinstance(found, LaminaError):
            ids.append(found)
        elif found.kind is not Kind.NOT_FOUND or manifest.digest == named.target.digest:
            is_whole = False  # else it is of an index, and was never pulled
    return Held(named, tuple(dict.fromkeys(ids)), is_whole)


def _walk(store: Store, target: Descriptor) -> Iterator[tuple[Descriptor, Digest | LaminaError]]:
    """Each manifest or damaged index with its image id, or why it cannot be read."""
    todo = [target]
    for each in todo:  # grows while it is read
        if len(todo) > MAX_ENTRIES:
            yield each, LaminaError(f"index {target.digest}: too many images", kind=Kind.INVALID)
            return
        try:
            raw = store.content.read(each.digest, limit=MAX_DOCUMENT)
            if each.media_type in mediatype.INDEXES:
                entries = Index.parse(raw, media_type=each.media_type).manifests
                todo += [entry for entry in entries if entry.annotation(ATTESTATION) is None]
                continue
            found = Manifest.parse(raw, media_type=each.media_type).config.digest
        except LaminaError as error:
            yield each, error
            continue
        yield each, found
