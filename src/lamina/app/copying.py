# SPDX-License-Identifier: Apache-2.0
"""Copy images between registries, image layouts, archives and the store; ask and delete there."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager

from lamina.app.images import save_images
from lamina.app.pulling import choose_platform
from lamina.errors import Kind, LaminaError
from lamina.events import Phase
from lamina.exporter.destination import write_aside
from lamina.exporter.ports import Exported
from lamina.image.archive_read import load_archive
from lamina.image.names import set_names
from lamina.image.resolve import find_target
from lamina.registry.graph import copy_graph
from lamina.registry.journal import StoreJournal
from lamina.registry.layout import LayoutEnd
from lamina.registry.storeend import StoreEnd
from lamina.registry.upload import RegistrySink
from lamina.spec import mediatype
from lamina.spec.manifest import MAX_INDEX_DEPTH, Index
from lamina.spec.reference import Reference, is_dangling
from lamina.start.record import Record, replace
from lamina.store import open_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lamina.registry.client import Registries
    from lamina.registry.ports import Sink, Source
    from lamina.spec.descriptor import Descriptor
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken, Work

TRANSPORTS = ("docker", "store", "oci", "oci-archive", "docker-archive")


class Place(Record):
    """One end of a copy. `kind` is of TRANSPORTS (`docker`: a registry); `name` is the reference,
    or the name inside the layout or archive at `path`.
    """

    kind: str
    path: str = ""
    name: str = ""


class CopyOptions(Record):
    """`platform` picks one image of an index (None: this `host`'s, unless `all_platforms`)."""

    host: Platform
    platform: Platform | None = None
    all_platforms: bool = False
    jobs: int = 4


def copy(
    store: Store,
    registries: Registries,
    source: Place,
    target: Place,
    options: CopyOptions,
    *,
    work: Work,
) -> Descriptor:
    """Copy an image and give it its name at the target last; what was copied.

    Of an index the image for the platform is copied as a plain image, or with `all_platforms` the
    whole index, byte for byte. Layers that a registry has are mounted or skipped.

    Raises:
        LaminaError: as the two ends say; USAGE for a target without a name where it needs one.
    """
    ends = _Ends(store, registries, options, cancel=work.cancel, clock=work.clock)
    with ExitStack() as stack:
        stack.enter_context(store.lease("copy"))
        end, root = stack.enter_context(ends.source(source))
        root = _chosen(end, root, options)
        sink, finish = stack.enter_context(ends.target(target, root, source=source))
        copy_graph(
            end,
            sink,
            root,
            work=work,
            jobs=options.jobs,
            phase=Phase.COPYING,
        )
        finish()
    return root


def _chosen(end: Source, root: Descriptor, options: CopyOptions) -> Descriptor:
    """The root itself, or the image of the index for the platform."""
    for _ in range(MAX_INDEX_DEPTH + 1):
        if root.media_type not in mediatype.INDEXES or options.all_platforms:
            return replace(root, platform=None, annotations=())
        entries = Index.parse(end.document(root), media_type=root.media_type).manifests
        root = choose_platform(entries, options.platform or options.host)
    raise LaminaError(f"index {root.digest}: nested too deeply", kind=Kind.INVALID)


class _Ends:
    """Opens the two ends of a copy; each is there until its block ends."""

    def __init__(
        self,
        store: Store,
        registries: Registries,
        options: CopyOptions,
        *,
        cancel: CancelToken,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._registries = registries
        self._options = options
        self._cancel = cancel
        self._clock = clock

    @contextmanager
    def source(self, place: Place) -> Iterator[tuple[Source, Descriptor]]:
        """What to read from, and the manifest or index that `place` names there."""
        match place.kind:
            case "docker":
                reference = Reference.parse(place.name).with_default_tag()
                repository = self._registries.repository(reference)
                resolved = repository.resolve(str(reference.digest or reference.tag))
                yield repository, resolved.descriptor
            case "store":
                yield StoreEnd(self._store), find_target(self._store, place.name).target
            case "oci":
                layout = LayoutEnd(place.path)
                yield layout, layout.find(place.name)
            case _:
                with _loaded(self._store, place, self._options, cancel=self._cancel) as loaded:
                    inner, target = loaded
                    yield StoreEnd(inner), target

    @contextmanager
    def target(
        self, place: Place, root: Descriptor, *, source: Place
    ) -> Iterator[tuple[Sink, Callable[[], object]]]:
        """What to write `root` to, and what gives it its name there when it is complete."""
        match place.kind:
            case "docker":
                reference = Reference.parse(place.name)
                if reference.digest is None:
                    reference = reference.with_default_tag()
                elif reference.digest != root.digest:
                    raise LaminaError(
                        f"the image is {root.digest}, not as named", kind=Kind.INTEGRITY
                    )
                sink = RegistrySink(
                    self._registries.repository(reference, for_push=True).own,
                    root=root.digest,
                    tags=(reference.tag,) if reference.tag else (),
                    journal=StoreJournal(self._store, clock=self._clock),
                    mounts=_mounts_of(source, reference),
                )
                yield sink, lambda: None
            case "store":
                name = str(Reference.parse(place.name).with_default_tag())
                yield StoreEnd(self._store), lambda: set_names(self._store, [name], root)
            case "oci":
                layout = LayoutEnd(place.path)
                layout.create()
                yield layout, lambda: layout.set_ref(root, place.name)
            case _:
                with _scratch_store(self._store) as inner:
                    yield (
                        StoreEnd(inner),
                        lambda: _save(inner, root, place, self._options, cancel=self._cancel),
                    )


@contextmanager
def _scratch_store(store: Store) -> Iterator[Store]:
    """A store of its own for an archive on its way, gone at the end."""
    parent = os.path.join(store.root, "tmp")
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="copy-") as place:
        inner = open_store(os.path.join(place, "store"))
        try:
            with inner.lease("copy"):
                yield inner
        finally:
            inner.close()
            shutil.rmtree(os.path.join(place, "store"), ignore_errors=True)


@contextmanager
def _loaded(
    store: Store, place: Place, options: CopyOptions, *, cancel: CancelToken
) -> Iterator[tuple[Store, Descriptor]]:
    with _scratch_store(store) as inner:
        with open(place.path, "rb") as file:
            images = load_archive(
                inner, file, platform=options.platform or options.host, cancel=cancel
            )
        wanted = place.name
        named = [
            image
            for image in images
            if not wanted
            or wanted in image.names
            or str(Reference.parse(wanted).with_default_tag()) in image.names
        ]
        if len(named) != 1:
            names = ", ".join(Reference.parse(n).familiar() for i in images for n in i.names)
            raise LaminaError(
                f"{place.path} has {len(named) or 'no'} images"
                + (f" named {wanted!r}" if wanted else ": say which"),
                kind=Kind.NOT_FOUND if not named else Kind.INVALID,
                hint=f"it has: {names}" if names else "",
            )
        yield inner, named[0].target


def _mounts_of(source: Place, target: Reference) -> Callable[[object], Sequence[str]] | None:
    """Blobs of a copy inside one registry are mounted."""
    if source.kind != "docker":
        return None
    reference = Reference.parse(source.name)
    if reference.registry != target.registry or reference.repository == target.repository:
        return None
    return lambda _: (reference.repository,)


def _save(
    inner: Store, root: Descriptor, place: Place, options: CopyOptions, *, cancel: CancelToken
) -> None:
    names = [str(Reference.parse(place.name).with_default_tag())] if place.name else []
    set_names(inner, names, root)
    texts = names or [
        named.name for named in inner.metadata.list_names() if is_dangling(named.name)
    ]

    def fill(write: Callable[[bytes], object]) -> None:
        save_images(
            inner,
            texts,
            write,
            format=place.kind,
            platform=options.platform or options.host,
            cancel=cancel,
        )

    write_aside(place.path, fill, Exported(None, None)).finalize()
