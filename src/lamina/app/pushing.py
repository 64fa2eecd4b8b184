# SPDX-License-Identifier: Apache-2.0
"""Push images of the store to registries."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.events import Notice, Phase
from lamina.image.told import tell_transfer
from lamina.image.view import Image
from lamina.registry.graph import copy_graph
from lamina.registry.journal import StoreJournal
from lamina.registry.storeend import StoreEnd
from lamina.registry.upload import RegistrySink
from lamina.spec import mediatype
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.manifest import Index, Manifest
from lamina.spec.reference import Reference, is_dangling
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.events import Emitter
    from lamina.registry.client import Registries
    from lamina.spec.descriptor import Descriptor
    from lamina.spec.digest import Digest
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import Work

_MAX_MOUNTS = 3  # repositories tried a blob


class Pushed(Record):
    """What was pushed where; `mounted` blobs came from other repositories of the registry."""

    reference: Reference
    target: Descriptor
    moved: int
    present: int
    mounted: int


def push_image(
    store: Store,
    registries: Registries,
    text: str,
    *,
    host: Platform,
    platform: Platform | None = None,
    jobs: int = 5,
    work: Work,
) -> Pushed:
    """Push the stored image of that name to the repository it names; the tag moves last.

    Of an index that is here only in part, the image for `platform` (or the only one) is pushed.

    Raises:
        LaminaError: kind NOT_FOUND if no image has this name; as the registry says.
    """
    reference = Reference.parse(text).with_default_tag()
    if reference.digest is not None:
        raise LaminaError(
            f"cannot push {text!r}: a name with a digest cannot be pushed to", kind=Kind.USAGE
        )
    named = store.metadata.get_name(str(reference))
    if named is None:
        raise LaminaError(
            f"An image does not exist locally with the tag: {reference.familiar()}",
            kind=Kind.NOT_FOUND,
            hint="name it with 'lamina tag IMAGE " + reference.familiar() + "'",
        )
    with store.lease("push"):
        target = _pushable(store, named.target, platform, host, work.emit, reference)
        journal = StoreJournal(store, clock=work.clock)
        journal.sweep()
        sink = RegistrySink(
            registries.repository(reference, for_push=True).own,
            root=target.digest,
            tags=(reference.tag,),
            journal=journal,
            mounts=_Mounts(store, reference),
        )
        with store.lock(f"push:{reference.name}:{target.digest}", cancel=work.cancel):
            copied = copy_graph(
                StoreEnd(store),
                sink,
                target,
                work=work,
                jobs=jobs,
                phase=Phase.PUSHING,
            )
        tell_transfer(store, "push", reference, target)
    mounted = len(sink.mounted)
    return Pushed(reference, target, copied.moved - mounted, copied.present, mounted)


def names_of_repository(store: Store, text: str) -> list[str]:
    """Every stored name of the repository. Raises kind USAGE for a name with a tag."""
    reference = Reference.parse(text)
    if reference.tag or reference.digest is not None:
        raise LaminaError("tag can't be used with --all-tags/-a", kind=Kind.USAGE)
    found = [
        named.name
        for named in store.metadata.list_names()
        if not is_dangling(named.name)
        and "@" not in named.name
        and Reference.parse(named.name).name == reference.name
    ]
    if not found:
        raise LaminaError(
            f"An image does not exist locally with the tag: {reference.familiar_name()}",
            kind=Kind.NOT_FOUND,
        )
    return found


def _pushable(
    store: Store,
    target: Descriptor,
    platform: Platform | None,
    host: Platform,
    emit: Emitter,
    reference: Reference,
) -> Descriptor:
    """`target`, or the image of the index that is here."""
    if target.media_type not in mediatype.INDEXES:
        if platform is not None:
            Image.open(store, target, platform=platform)
        return target
    if platform is not None:
        return Image.open(store, target, platform=platform).descriptor()
    raw = store.content.read(target.digest, limit=MAX_DOCUMENT)
    entries = Index.parse(raw, media_type=target.media_type).manifests
    if all(_is_here(store, entry) for entry in entries):
        return target
    here = [entry for entry in entries if entry.platform is not None and _is_here(store, entry)]
    if not here:
        raise LaminaError(
            f"no image of {reference.familiar()} is whole in the store",
            kind=Kind.NOT_FOUND,
            hint="pull it again",
        )
    ranked = [
        (rank, n)
        for n, entry in enumerate(here)
        if entry.platform is not None and (rank := host.preference(entry.platform)) is not None
    ]
    chosen = here[min(ranked)[1]] if ranked else here[0]
    emit(
        Notice(
            f"not every image of {reference.familiar()} is in the store: "
            f"only the one for {chosen.platform} is pushed"
        )
    )
    return replace(chosen, platform=None, annotations=())


def _is_here(store: Store, entry: Descriptor) -> bool:
    if not store.content.exists(entry.digest):
        return False
    if entry.media_type not in mediatype.MANIFESTS:
        return False
    raw = store.content.read(entry.digest, limit=MAX_DOCUMENT)
    manifest = Manifest.parse(raw, media_type=entry.media_type)
    return all(store.content.exists(part.digest) for part in (*manifest.layers, manifest.config))


class _Mounts:
    """Which other repositories of the registry may have a blob: those of images stored here."""

    def __init__(self, store: Store, reference: Reference) -> None:
        self._store = store
        self._reference = reference
        self._known: dict[Digest, list[str]] | None = None

    def __call__(self, digest: Digest) -> Sequence[str]:
        if self._known is None:
            self._known = self._read()
        return self._known.get(digest, [])[:_MAX_MOUNTS]

    def _read(self) -> dict[Digest, list[str]]:
        known: dict[Digest, list[str]] = {}
        for named in self._store.metadata.list_names():
            if is_dangling(named.name):
                continue
            other = Reference.parse(named.name)
            if other.registry != self._reference.registry or other.name == self._reference.name:
                continue
            try:
                layers = Image.open(self._store, named.target).layers()
            except LaminaError:
                continue  # damaged or not here: nothing to mount
            for layer in layers:
                repositories = known.setdefault(layer.descriptor().digest, [])
                if other.repository not in repositories:
                    repositories.append(other.repository)
        return known
