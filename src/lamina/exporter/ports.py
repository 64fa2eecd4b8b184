# SPDX-License-Identifier: Apache-2.0
"""What an exporter is given, what it gives back, and which one an `Output` needs."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Protocol

    from lamina.events import Emitter
    from lamina.exporter.output import Output
    from lamina.spec.config import ImageConfig
    from lamina.spec.digest import Digest, Stack
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken
else:
    Protocol = object


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

    def export(
        self, result: BuildResult, store: Store, *, emit: Emitter, cancel: CancelToken
    ) -> PendingExport:
        """Make everything that can fail; the caller holds a lease until after `finalize`.

        Raises:
            LaminaError: NOT_FOUND or INTEGRITY for layers, EXHAUSTED for a full disk, CONFLICT
                for a destination in the way.
            Cancelled: nothing is left of the export but unreferenced blobs.
        """


def make_exporter(
    output: Output,
    *,
    clock: Callable[[], float],
    stdout: IO[bytes] | None = None,
    privileged: bool = False,
) -> Exporter:
    """The exporter for `output`, whose `dest` is absolute or `-`; `stdout` is for the latter.

    `clock` gives POSIX seconds for events. `privileged` (uid 0): `type=local` keeps owners,
    setuid bits and device nodes; otherwise files belong to the caller.

    Raises:
        LaminaError: kind USAGE if `-` was asked for and there is no `stdout`, or it is a terminal.
    """
    if output.dest == "-" and (stdout is None or stdout.isatty()):
        raise LaminaError(
            f"output type={output.type} is not written to a terminal",
            kind=Kind.USAGE,
            hint="redirect standard output or give dest=FILE",
        )
    if output.placed_annotations:
        from lamina.exporter.options import refuse_places

        refuse_places(output)
    if output.type == "image":
        from lamina.exporter.stored import StoredExporter

        return StoredExporter(output, clock)
    if output.type in {"oci", "docker"}:
        from lamina.exporter.archives import ArchiveExporter

        return ArchiveExporter(output, clock, stdout)
    if output.type == "cacheonly":
        from lamina.exporter.cacheonly import NoExporter

        return NoExporter()
    from lamina.exporter.rootfs import RootfsExporter

    return RootfsExporter(output, clock, stdout, privileged=privileged)
