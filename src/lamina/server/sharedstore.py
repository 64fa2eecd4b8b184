# SPDX-License-Identifier: Apache-2.0
"""lamina's own store beside a registry's storage: images built or pulled here are served uncopied.

A repository is called as lamina prints the image: `app`, `alice/app`, `ghcr.io/a/b`. What was pushed
wins over the store; pushes, deletes and collection are the registry's own storage's alone. A
manifest that is pushed and needs something that only the store has gets a copy of that, so nothing
in the registry depends on the store.

The store may be collected meanwhile: a blob's file is opened before its first byte is sent, and an
open file stays whole; what is gone before that is 404. Images of registries with a port in their
name cannot be named in a repository's name, and are not served.
"""

from __future__ import annotations

import heapq
import os
from functools import partial
from itertools import islice

from lamina.errors import Kind, LaminaError
from lamina.server import manifests, routes
from lamina.server.ports import BlobStream, StoredManifest
from lamina.server.wire import Refusal
from lamina.spec import mediatype
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import Digest
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.manifest import children
from lamina.spec.reference import Reference
from lamina.store.local import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lamina.server.ports import (
        Blobs,
        Manifests,
        NewManifest,
        Referrer,
        Storage,
        StoredBlob,
        Upkeep,
        Uploads,
        UploadSession,
    )
    from lamina.store.ports import Store

_PIECE = 1 << 20  # bytes read at a time
_REMEMBERED = 256  # images whose parts are known


class SharedStorage:
    """`own`, and behind it the store at `root`; closes both."""

    def __init__(self, own: Storage, root: str, *, clock: Callable[[], float]) -> None:
        if not os.path.isdir(root):
            own.close()
            raise LaminaError(f"there is no store at {root}", kind=Kind.NOT_FOUND)
        self._own = own
        try:
            self._store = open_store(root, clock=clock)
        except BaseException:
            own.close()
            raise
        images = StoreImages(self._store)
        self.remote = own.remote
        self.blobs: Blobs = SharedBlobs(own, images)
        self.uploads: Uploads = own.uploads
        self.manifests: Manifests = SharedManifests(own, images)
        self.upkeep: Upkeep = own.upkeep

    def close(self) -> None:
        self._own.close()
        self._store.close()


class StoreImages:
    """The store's images by repository name. Parts of an image never change, names do."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parts: dict[Digest, dict[str, Descriptor]] = {}

    def target(self, repository: str, tag: str) -> Descriptor | None:
        """The manifest or index that a tag points to."""
        name = _normal(repository)
        found = self._store.metadata.get_name(f"{name}:{tag}") if name else None
        return None if found is None else found.target

    def names(self) -> list[tuple[str, str, Descriptor]]:
        """(repository, tag, target) of every image that can be named, sorted."""
        found = []
        for image in self._store.metadata.list_names():
            reference = Reference.parse(image.name)
            repository = reference.familiar_name()
            if reference.tag and _normal(repository) == reference.name:
                found.append((repository, reference.tag, image.target))
        return sorted(found, key=lambda entry: entry[:2])

    def part(self, repository: str, digest: str) -> Descriptor | None:
        """What the repository's images have under that digest, if the store still has its bytes."""
        name = _normal(repository)
        if not name:
            return None
        for image in self._store.metadata.list_names():
            if image.name.rpartition(":")[0] == name:
                found = self._of(image.target).get(digest)
                if found is not None and self._store.content.exists(found.digest):
                    return found
        return None

    def size(self, part: Descriptor) -> int:
        """The bytes of a part, as they are in the store."""
        return self._store.content.info(part.digest).size

    def document(self, part: Descriptor) -> bytes:
        """A manifest's bytes, verified."""
        return self._store.content.read(part.digest, limit=MAX_DOCUMENT)

    def read(self, part: Descriptor, offset: int, length: int) -> Iterator[bytes]:
        """A part's bytes; the file is open while they are read."""
        with self._store.content.open(part.digest, offset=offset) as file:
            while length > 0 and (piece := file.read(min(_PIECE, length))):
                length -= len(piece)
                yield piece

    def _of(self, target: Descriptor) -> dict[str, Descriptor]:
        known = self._parts.get(target.digest)
        if known is not None:
            return known
        found: dict[str, Descriptor] = {}
        waiting = [target]
        whole = True
        while waiting:
            part = waiting.pop()
            if str(part.digest) in found:
                continue
            found[str(part.digest)] = part
            if not _is_document(part):
                continue
            try:
                waiting += children(part.media_type, self.document(part))
            except LaminaError:  # a platform that was not pulled (yet)
                whole = False
        if whole:
            while len(self._parts) >= _REMEMBERED:
                self._parts.pop(next(iter(self._parts)), None)
            self._parts[target.digest] = found
        return found


class SharedBlobs:
    """The `Blobs` port: the registry's own, then the store's."""

    def __init__(self, own: Storage, images: StoreImages) -> None:
        self._own = own
        self._images = images

    def find(self, repository: str, digest: Digest, *, keep: bool = True) -> StoredBlob | None:
        found = self._own.blobs.find(repository, digest, keep=keep)
        if found is not None:
            return found
        part = self._images.part(repository, str(digest))
        if part is None or _is_document(part):
            return None
        try:
            size = self._images.size(part)
        except LaminaError:  # collected since
            return None
        return BlobStream(size, partial(self._images.read, part))

    def mount(self, digest: Digest, *, source: str, target: str) -> bool:
        if self._own.blobs.mount(digest, source=source, target=target):
            return True
        return copy_blob(self._own, self._images, digest, source=source, target=target)

    def holders(self, digest: Digest) -> Sequence[str]:
        return self._own.blobs.holders(digest)

    def remove(self, repository: str, digest: Digest) -> bool:
        if self._own.blobs.remove(repository, digest):
            return True
        if self._images.part(repository, str(digest)) is not None:
            raise _not_ours()
        return False


class SharedManifests:
    """The `Manifests` port: the registry's own, then the store's."""

    def __init__(self, own: Storage, images: StoreImages) -> None:
        self._own = own
        self._images = images

    def find(self, repository: str, *, tag: str = "", digest: str = "") -> StoredManifest | None:
        found = self._own.manifests.find(repository, tag=tag, digest=digest)
        if found is not None:
            return found
        if digest:
            part = self._images.part(repository, digest)
        else:
            part = self._images.target(repository, tag)
        if part is None or not _is_document(part):
            return None
        try:
            raw = self._images.document(part)
        except LaminaError as error:
            if error.kind is Kind.NOT_FOUND:
                return None
            raise
        return StoredManifest(str(part.digest), part.media_type, raw)

    def put(
        self,
        repository: str,
        manifest: NewManifest,
        *,
        tags: Sequence[str] = (),
        user: str = "",
    ) -> None:
        for digest in manifest.blobs:
            if self._own.blobs.find(repository, digest) is None:
                copy_blob(self._own, self._images, digest, source=repository, target=repository)
        for digest in manifest.manifests:
            if self._own.manifests.find(repository, digest=str(digest)) is None:
                found = self.find(repository, digest=str(digest))
                if found is not None:
                    made = manifests.parse(found.raw, content_type=found.media_type, digest=digest)
                    self.put(repository, made, user=user)
        self._own.manifests.put(repository, manifest, tags=tags, user=user)

    def remove(self, repository: str, digest: Digest, *, user: str = "") -> bool:
        if self._own.manifests.remove(repository, digest, user=user):
            return True
        if self._images.part(repository, str(digest)) is not None:
            raise _not_ours()
        return False

    def untag(self, repository: str, tag: str, *, user: str = "") -> bool:
        if self._own.manifests.untag(repository, tag, user=user):
            return True
        if self._images.target(repository, tag) is not None:
            raise _not_ours()
        return False

    def tags(self, repository: str, *, n: int, last: str) -> Sequence[str] | None:
        own = self._own.manifests.tags(repository, n=n, last=last)
        shared = [tag for name, tag, _ in self._images.names() if name == repository]
        if own is None and not shared:
            return None
        after = (last.lower(), last)
        found = {tag for tag in shared if (tag.lower(), tag) > after}.union(own or ())
        return sorted(found, key=lambda tag: (tag.lower(), tag))[:n]

    def referrers(
        self, repository: str, subject: Digest, *, n: int, last: str, artifact_type: str = ""
    ) -> Sequence[Referrer]:
        return self._own.manifests.referrers(
            repository, subject, n=n, last=last, artifact_type=artifact_type
        )

    def repositories(self, *, n: int, last: str) -> Sequence[str]:
        own = self._own.manifests.repositories(n=n, last=last)
        shared = sorted({name for name, _, _ in self._images.names() if name > last})
        merged = dict.fromkeys(heapq.merge(own, shared))
        return list(islice(merged, n))


def copy_blob(
    own: Storage, images: StoreImages, digest: Digest, *, source: str, target: str
) -> bool:
    """Make a blob of the store's repository `source` one of `target`; False if there is none.

    Raises:
        Refusal: DIGEST_INVALID: the store's bytes are damaged.
    """
    part = images.part(source, str(digest))
    if part is None or _is_document(part):
        return False
    session: UploadSession = own.uploads.start(target, user="", algorithm=digest.algorithm)
    try:
        for piece in images.read(part, 0, images.size(part)):
            session.write(piece)
        session.commit(digest)
    finally:
        session.cancel()
    return True


def _normal(repository: str) -> str:
    """`registry/repository` of a repository's name; empty if it cannot be an image's."""
    try:
        routes.check_name(repository)
        return Reference.parse(repository).name
    except LaminaError:
        return ""


def _is_document(part: Descriptor) -> bool:
    return part.media_type in mediatype.MANIFESTS or part.media_type in mediatype.INDEXES


def _not_ours() -> Refusal:
    return Refusal("UNSUPPORTED", "this is an image of lamina's store: lamina rmi removes it")
