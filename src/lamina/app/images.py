# SPDX-License-Identifier: Apache-2.0
"""Images: list, inspect, history, tag, save, load."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.events import Notice
from lamina.image.ids import held_names, ids_of, image_ids
from lamina.image.names import read_names, set_names
from lamina.image.resolve import find_target, open_preferred, preferred_image
from lamina.image.times import parse_time
from lamina.image.told import tell_image
from lamina.image.view import Image
from lamina.spec.config import run_config_to_json
from lamina.spec.reference import Reference, is_dangling
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from typing import IO

    from lamina.events import Emitter
    from lamina.image.archive_read import Loaded
    from lamina.spec.config import History
    from lamina.spec.descriptor import Descriptor
    from lamina.spec.digest import Digest
    from lamina.spec.platform import Platform
    from lamina.store.ports import NamedImage, Store
    from lamina.tasks import CancelToken


class Filters(Record):
    """Of `images --filter`: each tuple's members are alternatives for `reference`, and must all
    hold for `labels` ((name, value or None)). `before` and `since` are images as typed.
    """

    references: tuple[str, ...] = ()
    labels: tuple[tuple[str, str | None], ...] = ()
    dangling: bool | None = None
    before: str = ""
    since: str = ""


class Listed(Record):
    """A line of `images`: `reference` is None for a dangling image; `created` POSIX seconds."""

    reference: Reference | None
    image: Image
    created: float

    @property
    def size(self) -> int:
        """Bytes, uncompressed where known."""
        return self.image.size


def list_images(
    store: Store,
    *,
    platform: Platform,
    filters: Filters = Filters(),  # noqa: B008  # immutable
    emit: Emitter,
) -> list[Listed]:
    """One entry a name, newest image first, then by name. Damaged images are told as notices."""
    with store.lease("images"):
        before = _age_limit(store, filters.before, platform)
        since = _age_limit(store, filters.since, platform)
        found = [
            listed
            for listed in _listed(store, platform, emit)
            if _matches(listed, filters)
            and (before is None or listed.created < before)
            and (since is None or listed.created > since)
        ]
    return sorted(found, key=lambda listed: (-listed.created, str(listed.reference or "~")))


def _listed(store: Store, platform: Platform, emit: Emitter) -> Iterator[Listed]:
    names = store.metadata.list_names()
    for named in names:
        if is_dangling(named.name):
            continue
        image = _opened(named, lambda target: open_preferred(store, target, platform), emit)
        if image is not None:
            yield Listed(Reference.parse(named.name), image, created_of(image))
    if any(is_dangling(named.name) for named in names):
        yield from _dangling(store, platform, emit)


def _dangling(store: Store, platform: Platform, emit: Emitter) -> Iterator[Listed]:
    """Images without a name, each once, by an id that no image with a name has: who removes what
    has that id removes nothing else.
    """
    held = held_names(store)
    named = [each for each in held if not each.is_dangling]
    targets, ids = {each.named.target.digest for each in named}, ids_of(named)
    for each in held:
        target = each.named.target
        if not each.is_dangling or target.digest in targets or each.is_spare(ids):
            continue
        image = _opened(each.named, lambda target: _unnamed(store, target, platform, ids), emit)
        if image is not None:
            ids.add(image.id)  # the same image in two manifests is one line
            yield Listed(None, image, created_of(image))


def _unnamed(
    store: Store, target: Descriptor, platform: Platform, named: Collection[Digest]
) -> Image:
    """The image behind the target that is for the platform, or the first, of those not in `named`."""
    image = open_preferred(store, target, platform)
    if image.id not in named:
        return image
    for id, manifest in image_ids(store, target):
        if id not in named:
            return Image.open(store, manifest)
    raise LaminaError("what is left of it has a name, the rest is damaged", kind=Kind.INTEGRITY)


def _opened(
    named: NamedImage, opened: Callable[[Descriptor], Image], emit: Emitter
) -> Image | None:
    """The image; None after a notice if it is damaged."""
    try:
        return opened(named.target)
    except LaminaError as error:
        if error.kind not in {Kind.INTEGRITY, Kind.INVALID, Kind.NOT_FOUND}:
            raise
        emit(Notice(f"image {named.name} is damaged: {error}"))
        return None


def created_of(image: Image) -> float:
    """POSIX seconds, 0 if the image does not say."""
    return parse_time(image.config().created) or 0.0


def _age_limit(store: Store, text: str, platform: Platform) -> float | None:
    if not text:
        return None
    return created_of(open_preferred(store, find_target(store, text).target, platform))


def _matches(listed: Listed, filters: Filters) -> bool:
    if filters.dangling is not None and filters.dangling != (listed.reference is None):
        return False
    if filters.references and not any(
        matches_reference(listed.reference, pattern) for pattern in filters.references
    ):
        return False
    labels = dict(listed.image.config().config.labels)
    return all(
        name in labels and (value is None or labels[name] == value)
        for name, value in filters.labels
    )


def matches_reference(reference: Reference | None, pattern: str) -> bool:
    """Whether the name matches as `docker images PATTERN` does: `repo`, `repo:tag`, wildcards."""
    from lamina.dockerfile.ignore import match_path

    if reference is None:
        return False
    familiar = reference.familiar()
    texts = (familiar, reference.familiar_name(), str(reference), reference.name)
    return any(match_path(pattern, text) for text in texts)


# --- one image -------------------------------------------------------------------------------


class HistoryLine(Record):
    """A line of `history`: `id` is the image id for the newest, empty for the others."""

    id: str
    entry: History
    created: float | None
    size: int


def history(
    store: Store, text: str, *, platform: Platform, exact: bool = False
) -> list[HistoryLine]:
    """The image's history, newest first, with the size of each layer.

    Of an image for several platforms that for `platform`; with `exact` only that. Raises as
    `find_image`.
    """
    with store.lease("history"):
        image = preferred_image(store, text, platform, exact=exact)
        sizes = [layer.size for layer in image.layers()]
    entries = image.config().history
    surplus = len(sizes) - sum(not entry.empty_layer for entry in entries)
    layers = iter(sizes[max(surplus, 0) :])
    lines = [
        HistoryLine(
            "",
            entry,
            parse_time(entry.created),
            0 if entry.empty_layer else next(layers, 0),
        )
        for entry in entries
    ]
    lines.reverse()
    if not lines:
        return lines
    newest = lines[0]
    return [HistoryLine(str(image.id), newest.entry, newest.created, newest.size), *lines[1:]]


def inspect_image(
    store: Store, text: str, *, platform: Platform, exact: bool = False
) -> dict[str, object]:
    """The image as `docker image inspect` shows it; of several as `history`. Raises so, too."""
    with store.lease("inspect"):
        image = preferred_image(store, text, platform, exact=exact)
        names = _names_of_image(store, image)
        return _image_json(image, names)


def _names_of_image(store: Store, image: Image) -> list[NamedImage]:
    return [
        each.named for each in held_names(store) if not each.is_dangling and image.id in each.ids
    ]


def _image_json(image: Image, names: Sequence[NamedImage]) -> dict[str, object]:
    references = [(Reference.parse(named.name), named.target.digest) for named in names]
    config = image.config()
    descriptor = image.descriptor()
    size = image.size
    return {
        "Id": str(image.id),
        "RepoTags": [reference.familiar() for reference, _ in references if reference.tag],
        "RepoDigests": list(
            dict.fromkeys(f"{each.familiar_name()}@{digest}" for each, digest in references)
        ),
        "Parent": "",
        "Comment": config.history[-1].comment if config.history else "",
        "Created": config.created,
        "Author": config.author,
        "Config": _config_json(image),
        "Architecture": config.architecture,
        "Variant": config.variant,
        "Os": config.os,
        "OsVersion": config.os_version,
        "Size": size,
        "VirtualSize": size,
        "RootFS": {"Type": "layers", "Layers": [str(diff_id) for diff_id in config.diff_ids]},
        "Descriptor": {
            "mediaType": descriptor.media_type,
            "digest": str(descriptor.digest),
            "size": descriptor.size,
        },
        "Manifest": {
            "Layers": [layer.to_json() for layer in image.manifest().layers],
            "Annotations": dict(image.manifest().annotations),
        },
    }


def _config_json(image: Image) -> dict[str, object]:
    """The run config with Docker's zero values for what is unset, so that templates find it."""
    empty: dict[str, object] = {
        "User": "",
        "ExposedPorts": {},
        "Env": [],
        "Entrypoint": None,
        "Cmd": None,
        "Volumes": {},
        "WorkingDir": "",
        "Labels": {},
        "StopSignal": "",
        "Healthcheck": None,
        "Shell": None,
        "OnBuild": [],
    }
    return empty | run_config_to_json(image.config().config)


def tag(store: Store, source: str, name: str) -> None:
    """Give the image `source` (name or id) another name, moving it if it is taken.

    Raises:
        ImageNotFound, InvalidReference, LaminaError of kind USAGE for a name with a digest.
    """
    reference = tagged_reference(name)
    with store.lease("tag"):
        target = find_target(store, source).target
        set_names(store, [str(reference)], target)
        tell_image(store, "tag", target, names=[reference.familiar()])


def tagged_reference(name: str) -> Reference:
    """The name with `latest` if it has no tag. Raises kind USAGE if it has a digest."""
    reference = Reference.parse(name).with_default_tag()
    if reference.digest is not None:
        raise LaminaError(
            f"invalid name {name!r}: a digest cannot be given to a name", kind=Kind.USAGE
        )
    return reference


def collect_garbage(store: Store, *, emit: Emitter) -> int:
    """Free what no name, container or cache record needs; bytes freed."""
    from lamina.store.gc import collect
    from lamina.store.local import LocalStore

    assert isinstance(store, LocalStore)
    return collect(store, emit=emit).bytes


# --- archives --------------------------------------------------------------------------------


def save_images(
    store: Store,
    texts: Sequence[str],
    write: Callable[[bytes], object],
    *,
    format: str,
    platform: Platform,
    cancel: CancelToken,
    exact: bool = False,
) -> None:
    """Write the images to an archive. A repository without a tag means all its tags, as in Docker.

    An index is written whole to an oci-archive; a docker-archive gets its image for `platform` or
    the first. With `exact` both get the image for `platform` only.

    Raises:
        ImageNotFound; LaminaError NOT_FOUND or INTEGRITY for blobs.
    """
    from lamina.image.archive_write import ArchiveImage, write_docker_archive, write_oci_archive

    with store.lease("save"):
        chosen: dict[object, tuple[Descriptor, list[str]]] = {}
        for text in texts:
            for wanted, name in _to_save(store, text):
                target = wanted
                if exact:
                    target = Image.open(store, wanted, platform=platform).descriptor()
                elif format == "docker-archive":
                    target = open_preferred(store, wanted, platform).descriptor()
                _, names = chosen.setdefault(target.digest, (target, []))
                if name and name not in names:
                    names.append(name)
        images = [ArchiveImage(target, tuple(names)) for target, names in chosen.values()]
        writer = write_docker_archive if format == "docker-archive" else write_oci_archive
        writer(store, images, write, cancel=cancel)
        for image in images:
            tell_image(store, "save", image.target)


def _to_save(store: Store, text: str) -> list[tuple[Descriptor, str]]:
    """(target, name) of what `text` means to `save`."""
    reference = _reference(text)
    if reference is not None and not reference.tag and reference.digest is None:
        tags = [
            (named.target, named.name)
            for named in read_names(store).all
            if not is_dangling(named.name) and Reference.parse(named.name).name == reference.name
        ]
        if tags:
            return tags
    found = find_target(store, text)
    named = found.name if reference is not None and reference.digest is None else ""
    return [(found.target, named)]


def _reference(text: str) -> Reference | None:
    try:
        return Reference.parse(text)
    except LaminaError:
        return None  # an image id; find_target reports anything else


def load_images(
    store: Store,
    stream: IO[bytes],
    *,
    platform: Platform,
    cancel: CancelToken,
    exact: bool = False,
) -> list[Loaded]:
    """Add the images of an archive to the store. A stream that cannot be read twice is spooled.

    With `exact` only the image for `platform` of each index.

    Raises:
        LaminaError: see `load_archive`; the store is unchanged then.
    """
    with store.lease("load"):
        loaded = _load(store, stream, platform=platform, cancel=cancel, exact=exact)
        for each in loaded:
            tell_image(store, "load", each.target)
    return loaded


def _load(
    store: Store, stream: IO[bytes], *, platform: Platform, cancel: CancelToken, exact: bool
) -> list[Loaded]:
    from lamina.image.archive_read import load_archive

    if stream.seekable():
        return load_archive(store, stream, platform=platform, cancel=cancel, exact=exact)
    import tempfile

    with tempfile.TemporaryFile(dir=f"{store.root}/ingest") as spool:
        while piece := stream.read(1 << 20):
            cancel.check()
            spool.write(piece)
        spool.seek(0)
        return load_archive(store, spool, platform=platform, cancel=cancel, exact=exact)
