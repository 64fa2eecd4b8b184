# SPDX-License-Identifier: Apache-2.0
"""What an exporter is given and what it gives back."""

from __future__ import annotations

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from lamina.spec.config import ImageConfig
    from lamina.spec.digest import Digest, Stack
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import Work
else:
    Protocol = object


class Output(Record):
    """A checked `--output`. `dest` is a path, `-` for standard output, empty for `image`.

    `names` are further image names (`name=`), `annotations` go into the manifest, sorted by key.
    `type=cacheonly` makes nothing: the build only fills the cache. `platform_split` puts the files
    of `type=local` and `type=tar` into a directory named for the platform (`linux_amd64`); None:
    if there are several. `placed_annotations` are for other places than every manifest: (place,
    name, value), the place as `options.annotation_place` gives it. `push` sends the
    names to their registries once they are set.
    """

    type: str = "image"
    dest: str = ""
    names: tuple[str, ...] = ()
    compression: str = "gzip"
    compression_level: int | None = None
    force_compression: bool = False
    oci_mediatypes: bool = True
    annotations: tuple[tuple[str, str], ...] = ()
    tar: bool = True
    unpack: bool = False
    platform_split: bool | None = None
    push: bool = False
    placed_annotations: tuple[tuple[str, str, str], ...] = ()

    def placed(self, place: str) -> tuple[tuple[str, str], ...]:
        """The annotations for `place`, sorted by key."""
        return tuple((name, value) for at, name, value in self.placed_annotations if at == place)


class BuildResult(Record):
    """What a build made. All layers are in the store, at least as snapshots.

    `diff_ids` is the whole stack, lowest first, of which the first `base_layers` are the base
    image's. `config` holds the base's diff_ids only, and the history of base and build, the new
    entries without `created`. `names` are normalised references. `created` is now in POSIX
    seconds; `epoch` (SOURCE_DATE_EPOCH) replaces it, and clamps the mtimes of the new layers.
    `cached` says that no step ran: then an image made earlier of the same parts is the result.
    """

    diff_ids: Stack
    config: ImageConfig
    base_layers: int
    names: tuple[str, ...] = ()
    created: float = 0.0
    epoch: int | None = None
    cached: bool = False


class PlatformResult(Record):
    """What a build made for one of the platforms that were asked for."""

    platform: Platform
    result: BuildResult


class Exported(Record):
    """What there is now: manifest and config digest (None where no image was made), names."""

    manifest: Digest | None
    config: Digest | None
    names: tuple[str, ...] = ()


class PendingExport(Protocol):
    """An export that is made and not yet visible."""

    def finalize(self) -> Exported:
        """Set names, rename files into place. Call once."""

    def discard(self) -> None:
        """Remove what was made instead of finalising it. Idempotent."""


class Exporter(Protocol):
    """Turns results into one kind of output."""

    def export(self, result: BuildResult, store: Store, *, work: Work) -> PendingExport:
        """Make everything that can fail; the caller holds a lease until after `finalize`.

        Raises:
            LaminaError: NOT_FOUND or INTEGRITY for layers, EXHAUSTED for a full disk, CONFLICT
                for a destination in the way.
            Cancelled: nothing is left of the export but unreferenced blobs.
        """

    def export_platforms(
        self, results: Sequence[PlatformResult], store: Store, *, work: Work
    ) -> PendingExport:
        """As `export`, of the results for several platforms, in the order asked for, as one."""
