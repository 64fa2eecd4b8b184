# SPDX-License-Identifier: Apache-2.0
"""Results for several platforms as one export: an index, or a directory a platform.

`type=image` and `type=oci` make an index of the images, in the order of `--platform`; a tar or a
directory gets the trees in directories named as BuildKit names them (`linux_arm64`), unless
`platform-split=false` lays them over each other. A docker archive cannot hold an index.
"""

from __future__ import annotations

from contextlib import ExitStack

from lamina.errors import Kind, LaminaError
from lamina.exporter.archives import ArchiveExporter
from lamina.exporter.assemble import Assembled, assemble
from lamina.exporter.ports import Exported
from lamina.exporter.progress import Tell
from lamina.exporter.rootfs import RootfsExporter, joined
from lamina.exporter.stored import StoredExport, StoredExporter, all_names
from lamina.spec import mediatype
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import IO, Protocol

    from lamina.events import Emitter
    from lamina.exporter.output import Output
    from lamina.exporter.ports import BuildResult, PendingExport
    from lamina.exporter.rootfs import Tree
    from lamina.spec.descriptor import Descriptor
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken
else:
    Protocol = object


class PlatformResult(Record):
    """What a build made for one of the platforms that were asked for."""

    platform: Platform
    result: BuildResult


class PlatformsExporter(Protocol):
    """Turns the results for several platforms into one kind of output."""

    def export(
        self,
        results: Sequence[PlatformResult],
        store: Store,
        *,
        emit: Emitter,
        cancel: CancelToken,
    ) -> PendingExport:
        """As `Exporter.export`, with a result for each platform, in the order asked for."""


def make_platforms_exporter(
    output: Output,
    *,
    clock: Callable[[], float],
    stdout: IO[bytes] | None = None,
    privileged: bool = False,
) -> PlatformsExporter:
    """The exporter for `output`; parameters and errors as `make_exporter`.

    Raises:
        LaminaError: kind UNSUPPORTED for a docker archive.
    """
    from lamina.exporter.ports import make_exporter

    plain = replace(output, placed_annotations=())
    single = make_exporter(plain, clock=clock, stdout=stdout, privileged=privileged)
    if output.type == "docker":
        raise LaminaError(
            "docker exporter does not currently support exporting manifest lists",
            kind=Kind.UNSUPPORTED,
            hint="use type=oci, or type=image and 'lamina save --platform'",
        )
    if isinstance(single, StoredExporter | ArchiveExporter):
        return _IndexExporter(output, clock, single)
    if isinstance(single, RootfsExporter):
        return _TreesExporter(output, single)
    return _NothingExporter()


class _NothingExporter:
    """`type=cacheonly`."""

    def export(
        self,
        results: Sequence[PlatformResult],
        store: Store,
        *,
        emit: Emitter,
        cancel: CancelToken,
    ) -> PendingExport:
        """See `PlatformsExporter.export`."""
        return _Together([])


class _IndexExporter:
    """Makes the image for each platform, then the index; what is named is the index."""

    def __init__(
        self,
        output: Output,
        clock: Callable[[], float],
        single: StoredExporter | ArchiveExporter,
    ) -> None:
        self._output = output
        self._clock = clock
        self._single = single

    def export(
        self,
        results: Sequence[PlatformResult],
        store: Store,
        *,
        emit: Emitter,
        cancel: CancelToken,
    ) -> PendingExport:
        """See `PlatformsExporter.export`."""
        from lamina.image.platforms import add_index

        output = self._output
        tell = Tell(emit, self._clock)
        entries: list[Descriptor] = []
        for part in results:
            own = output.placed(f"manifest[{part.platform}]")
            manifest = replace(
                output, annotations=tuple(sorted({**dict(output.annotations), **dict(own)}.items()))
            )
            made = assemble(part.result, store, manifest, tell=tell, cancel=cancel)
            if output.unpack:
                from lamina.image.unpack import ensure_snapshot
                from lamina.image.view import Image

                stack = Image.open(store, made.target).config().diff_ids
                ensure_snapshot(store, stack, emit=emit, cancel=cancel)
            entries.append(
                replace(
                    made.target,
                    platform=part.platform,
                    annotations=(
                        *output.placed("manifest-descriptor"),
                        *output.placed(f"manifest-descriptor[{part.platform}]"),
                    ),
                )
            )
        media_type = (
            mediatype.OCI_INDEX if output.oci_mediatypes else mediatype.DOCKER_MANIFEST_LIST
        )
        index = add_index(store, entries, media_type=media_type, annotations=output.placed("index"))
        names = all_names(results[0].result, output)
        assembled = Assembled(index, None)
        if isinstance(self._single, ArchiveExporter):
            described = replace(index, annotations=output.placed("index-descriptor"))
            return self._single.write(
                Assembled(described, None), names, store, tell=tell, cancel=cancel
            )
        return StoredExport(store, assembled, names)


class _TreesExporter:
    """The root filesystems, side by side or in one."""

    def __init__(self, output: Output, single: RootfsExporter) -> None:
        self._output = output
        self._single = single
        self._is_split = output.platform_split is not False

    def export(
        self,
        results: Sequence[PlatformResult],
        store: Store,
        *,
        emit: Emitter,
        cancel: CancelToken,
    ) -> PendingExport:
        """See `PlatformsExporter.export`.

        Raises:
            LaminaError: kind CONFLICT if two platforms have a file of one path and are not split.
        """
        trees = [
            self._single.tree(part.result, store, emit=emit, cancel=cancel) for part in results
        ]
        places = [directory_of(part.platform) if self._is_split else "" for part in results]
        if not self._is_split:
            _check_overlap(results, trees)
        if self._output.type == "local":
            return _Together(
                self._single.local(place, tree, emit)
                for place, tree in zip(places, trees, strict=True)
            )

        def fill(write: Callable[[bytes], object]) -> None:
            from lamina.layer.tarwrite import write_tar

            with ExitStack() as stack:
                opened = [stack.enter_context(tree()) for tree in trees]
                write_tar(joined(places, opened), write)

        return self._single.tar(fill, emit)


def directory_of(platform: Platform) -> str:
    """The directory of a platform's files, as BuildKit names it: `linux_arm_v7`."""
    return str(platform).replace("/", "_")


def _check_overlap(results: Sequence[PlatformResult], trees: Sequence[Tree]) -> None:
    from lamina.layer.entry import EntryType
    from lamina.system.paths import shown

    owners: dict[bytes, str] = {}
    for part, tree in zip(results, trees, strict=True):
        with tree() as items:
            for entry, _ in items:
                if entry.type is EntryType.DIR:
                    continue
                other = owners.setdefault(entry.path, str(part.platform))
                if other != str(part.platform):
                    raise LaminaError(
                        f"cannot overwrite {shown(entry.path)} from {other} with "
                        f"{part.platform} when split option is disabled",
                        kind=Kind.CONFLICT,
                    )


class _Together:
    """Several exports as one, of files only."""

    def __init__(self, exports: Iterable[PendingExport]) -> None:
        self._exports = list(exports)

    def finalize(self) -> Exported:
        """Finalise each."""
        for export in self._exports:
            export.finalize()
        return Exported(None, None)

    def discard(self) -> None:
        """Discard each."""
        for export in self._exports:
            export.discard()
