# SPDX-License-Identifier: Apache-2.0
"""Pull images from registries into the store."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager

from lamina.errors import Kind, LaminaError
from lamina.events import Notice, Phase
from lamina.image.names import set_names
from lamina.image.told import tell_transfer
from lamina.image.unpack import ensure_snapshot
from lamina.image.view import Image, PlatformNotFound
from lamina.registry.arrivals import Arrivals, ArrivingEnd, ArrivingImage, can_unpack
from lamina.registry.graph import copy_graph, every
from lamina.registry.storeend import StoreEnd
from lamina.spec import mediatype
from lamina.spec.descriptor import Descriptor
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.identity import MAX_LAYERS, chain_ids
from lamina.spec.manifest import MAX_INDEX_DEPTH, Index, Manifest
from lamina.spec.reference import DEFAULT_REGISTRY, Reference
from lamina.start.record import Record, replace
from lamina.tasks import CancelToken, TaskGroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lamina.events import Emitter
    from lamina.registry.client import Registries, Repository
    from lamina.registry.ports import Sink
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import Work


class Pulled(Record):
    """What a pull did: `reference` is the stored name; `is_new` False if it was up to date."""

    reference: Reference
    target: Descriptor
    is_new: bool


class PullOptions(Record):
    """`platform` None: this host's, or whatever there is; `all_platforms` keeps every image of an
    index; `jobs` blobs at one time; `unpack` makes the layers of the image for `platform` ready to
    run while they arrive.
    """

    host: Platform
    platform: Platform | None = None
    all_platforms: bool = False
    jobs: int = 4
    unpack: bool = False


def pull_image(
    store: Store, registries: Registries, text: str, options: PullOptions, *, work: Work
) -> Pulled:
    """Pull what `text` names and give it that name in the store, last of all.

    A pull that was cut off goes on where it was. A name with a digest is stored by its digest.

    Raises:
        RegistryError, Unreachable: kind NOT_FOUND, DENIED, UNAVAILABLE.
        LaminaError: INTEGRITY for bytes that are not what was promised, UNSUPPORTED for what is no
            image, EXHAUSTED...
    """
    name = Reference.parse(text).with_default_tag()
    if name.digest is not None:
        name = replace(name, tag="")
    repository = registries.repository(_location(registries, name, text))
    wanted = str(name.digest) if name.digest is not None else name.tag
    with store.lease("pull"):
        current = _up_to_date(store, repository, name, wanted, options)
        if current is not None:
            if options.unpack:
                _unpack_present(store, current, options, work=work)
            tell_transfer(store, "pull", name, current)
            return Pulled(name, current, is_new=False)
        resolved = repository.resolve(wanted)
        target = resolved.descriptor
        before = store.metadata.get_name(str(name))
        _fetch(store, repository, target, options, work=work)
        _check(store, target, options, name=name.familiar(), emit=work.emit)
        set_names(store, [str(name)], target)
        tell_transfer(store, "pull", name, target)
    same = before is not None and before.target.digest == target.digest
    return Pulled(name, target, is_new=not same)


def _location(registries: Registries, name: Reference, text: str) -> Reference:
    """Where to pull from: a short name (as typed) may have an alias in registries.conf."""
    typed = text.partition("@")[0].partition(":")[0]
    if "/" in typed or name.registry != DEFAULT_REGISTRY:
        return name
    alias = registries.conf.alias(typed)
    if not alias:
        return name
    found = Reference.parse(alias)
    return replace(name, registry=found.registry, repository=found.repository)


def _up_to_date(
    store: Store, repository: Repository, name: Reference, wanted: str, options: PullOptions
) -> Descriptor | None:
    """The stored target if the registry has the same and all of it is here."""
    known = store.metadata.get_name(str(name))
    if known is None or options.all_platforms:
        return None
    if name.digest is None:
        head = repository.head(wanted)
        if head is None or head.digest != known.target.digest:
            return None
    try:
        platform = options.platform or options.host
        image = Image.open(store, known.target, platform=platform)
    except LaminaError:
        return None
    return known.target if image.is_complete() else None


def _fetch(
    store: Store, repository: Repository, target: Descriptor, options: PullOptions, *, work: Work
) -> None:
    wanted = options.platform or options.host

    def choose(entries: Sequence[Descriptor]) -> Sequence[Descriptor]:
        return (choose_platform(entries, wanted),)

    def copy(sink: Sink, token: CancelToken) -> None:
        copy_graph(
            repository,
            sink,
            target,
            work=replace(work, cancel=token),
            jobs=options.jobs,
            choose=every if options.all_platforms else choose,
            phase=Phase.PULLING,
        )

    manifest = _unpackable(repository, target, wanted) if options.unpack else None
    if manifest is None:
        copy(StoreEnd(store), work.cancel)
    else:
        _fetch_and_unpack(store, manifest, copy, work=work)


def _unpackable(repository: Repository, target: Descriptor, wanted: Platform) -> Manifest | None:
    """The manifest of the image to unpack, if there is one that can be."""
    try:
        for _ in range(MAX_INDEX_DEPTH):
            if target.media_type not in mediatype.INDEXES:
                break
            entries = Index.parse(repository.document(target), media_type=target.media_type)
            target = choose_platform(entries.manifests, wanted)
    except PlatformNotFound:
        return None  # all platforms are pulled, this one is not among them; else the copy says so
    if target.media_type not in mediatype.MANIFESTS:
        return None
    manifest = Manifest.parse(repository.document(target), media_type=target.media_type)
    return manifest if can_unpack(manifest) else None


def _fetch_and_unpack(
    store: Store, manifest: Manifest, copy: Callable[[Sink, CancelToken], None], *, work: Work
) -> None:
    """Run `copy` into the store; beside it, unpack the layers of `manifest` as they arrive."""
    with ExitStack() as stack:
        group = TaskGroup(work.cancel)
        arrivals = stack.enter_context(closing(Arrivals(store, group.token)))
        stack.enter_context(group)
        end = ArrivingEnd(store, arrivals, {layer.digest for layer in manifest.layers})
        image = ArrivingImage(
            end, arrivals, manifest, store=store, work=replace(work, cancel=group.token)
        )

        def unpack() -> None:
            with _packed_if_denied(work.emit):
                image.unpack()

        group.start(lambda: copy(end, group.token), name="pull")
        group.start(unpack, name="unpack")


def _unpack_present(store: Store, target: Descriptor, options: PullOptions, *, work: Work) -> None:
    """Unpack what was pulled packed before."""
    stack = Image.open(store, target, platform=options.platform or options.host).config().diff_ids
    if len(stack) <= MAX_LAYERS:
        with _packed_if_denied(work.emit):
            ensure_snapshot(store, stack, work=work)


@contextmanager
def _packed_if_denied(emit: Emitter) -> Iterator[None]:
    """Leave the layers packed, and say so, if the kernel refuses what unpacking needs."""
    try:
        yield
    except LaminaError as error:
        if error.kind is not Kind.DENIED:
            raise
        emit(Notice(f"the layers stay packed: {error}"))


def choose_platform(entries: Sequence[Descriptor], wanted: Platform) -> Descriptor:
    """The entry of an index that `wanted` runs best; the only one if it names no platform.

    Raises:
        PlatformNotFound: kind NOT_FOUND, naming what there is.
    """
    if len(entries) == 1 and entries[0].platform is None:
        return entries[0]
    ranked = [
        (rank, position)
        for position, entry in enumerate(entries)
        if entry.platform is not None and (rank := wanted.preference(entry.platform)) is not None
    ]
    if ranked:
        return entries[min(ranked)[1]]
    known = sorted({str(entry.platform) for entry in entries if entry.platform is not None})
    raise PlatformNotFound(
        f"no image for {wanted} in the index", hint=f"it has: {', '.join(known)}" if known else ""
    )


def _check(
    store: Store, target: Descriptor, options: PullOptions, *, name: str, emit: Emitter
) -> Image | None:
    """The pulled image; every layer must be what the config says.

    Raises:
        LaminaError: UNSUPPORTED (an artifact, or layers kept elsewhere), INTEGRITY.
    """
    if target.media_type in mediatype.MANIFESTS:
        raw = store.content.read(target.digest, limit=MAX_DOCUMENT)
        config = Manifest.parse(raw, media_type=target.media_type).config
        if config.media_type not in mediatype.CONFIGS:
            raise LaminaError(
                f"{name} is an artifact ({config.media_type}), not an image",
                kind=Kind.UNSUPPORTED,
                hint="'lamina copy' takes artifacts to a registry or an image layout",
            )
    image = Image.open(store, target, platform=options.platform)
    if options.platform is None:
        try:
            image = Image.open(store, target, platform=options.host)
        except PlatformNotFound:
            emit(Notice(f"{name} is for {image.config().platform}, this host is {options.host}"))
    chains = chain_ids(image.config().diff_ids)
    for layer, chain in zip(image.layers(), chains, strict=True):
        digest = layer.descriptor().digest
        record = store.metadata.get_layer(layer.diff_id())
        if record is not None and digest in {blob.digest for blob in record.blobs}:
            continue
        if store.snapshots.exists(chain):
            continue
        if not store.content.exists(digest):
            raise LaminaError(
                f"{name}: layer {digest.short()} is not distributed by registries",
                kind=Kind.UNSUPPORTED,
                hint="it is a foreign layer (of a Windows image): lamina does not follow its urls",
            )
        _record_present(store, layer.descriptor())
        record = store.metadata.get_layer(layer.diff_id())
        if record is None or digest not in {blob.digest for blob in record.blobs}:
            raise LaminaError(
                f"{name}: layer {digest.short()} is not the {layer.diff_id()} of the config",
                kind=Kind.INTEGRITY,
            )
    return image


def _record_present(store: Store, descriptor: Descriptor) -> None:
    """Record a blob that was here before (a layer of a manifest that was never unpacked)."""
    StoreEnd(store).record_layer(descriptor, CancelToken())


def pull_missing(
    store: Store,
    registries: Registries,
    text: str,
    options: PullOptions,
    *,
    missing: LaminaError | None,
    work: Work,
) -> Pulled:
    """As `pull_image`; an error says first why it was tried: `missing` is what looking gave."""
    try:
        return pull_image(store, registries, text, options, work=work)
    except LaminaError as error:
        raise explained(error, text, missing=missing) from None


def explained(error: LaminaError, text: str, *, missing: LaminaError | None) -> LaminaError:
    """The error of a pull of `text`, which says first why it was tried: `missing`, if that is why.

    An image of another platform is told once: that the store has none says nothing more.
    """
    if isinstance(error, PlatformNotFound):
        return error.about(f'image "{text}"')
    if missing is None:
        return error.about(f'image "{text}" could not be pulled')
    if error.kind is Kind.UNAVAILABLE and missing.hint:
        error.hint = missing.hint
    return error.about(f"{missing.what}, and pulling it failed")


def pull_all_tags(
    store: Store, registries: Registries, text: str, options: PullOptions, *, work: Work
) -> list[Pulled]:
    """Pull every tag of a repository.

    Raises:
        LaminaError: kind USAGE if `text` has a tag; else as `pull_image`.
    """
    reference = Reference.parse(text)
    if reference.tag or reference.digest is not None:
        raise LaminaError("tag can't be used with --all-tags/-a", kind=Kind.USAGE)
    pulled = []
    for tag in registries.repository(_location(registries, reference, text)).tags():
        one = f"{text}:{tag}"
        pulled.append(pull_image(store, registries, one, options, work=work))
    return pulled
