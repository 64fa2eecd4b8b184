# SPDX-License-Identifier: Apache-2.0
"""`type=oci` and `type=docker`: the result as an archive, or as an OCI image layout directory."""

from __future__ import annotations

from lamina.exporter.assemble import assemble
from lamina.exporter.destination import StreamExport, write_aside
from lamina.exporter.ports import Exported
from lamina.exporter.progress import Tell
from lamina.exporter.stored import all_names
from lamina.image.archive_write import (
    ArchiveImage,
    write_docker_archive,
    write_oci_archive,
    write_oci_directory,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    from lamina.events import Emitter
    from lamina.exporter.assemble import Assembled
    from lamina.exporter.output import Output
    from lamina.exporter.ports import BuildResult, PendingExport
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken


class ArchiveExporter:
    """Assembles the image in the store, unnamed, and copies it out."""

    def __init__(
        self, output: Output, clock: Callable[[], float], stdout: IO[bytes] | None
    ) -> None:
        self._output = output
        self._clock = clock
        self._stdout = stdout

    def export(
        self, result: BuildResult, store: Store, *, emit: Emitter, cancel: CancelToken
    ) -> PendingExport:
        """See `Exporter.export`."""
        names = all_names(result, self._output)
        tell = Tell(emit, self._clock)
        assembled = assemble(result, store, self._output, tell=tell, cancel=cancel)
        return self.write(assembled, names, store, tell=tell, cancel=cancel)

    def write(
        self,
        assembled: Assembled,
        names: tuple[str, ...],
        store: Store,
        *,
        tell: Tell,
        cancel: CancelToken,
    ) -> PendingExport:
        """The archive or directory with an image or index that is in the store."""
        images = [ArchiveImage(assembled.target, names)]
        exported = Exported(assembled.target.digest, assembled.config, names)
        dest = self._output.dest
        if not self._output.tar:
            return _DirectoryExport(store, images, dest, cancel, exported)
        writer = write_oci_archive if self._output.type == "oci" else write_docker_archive

        def fill(write: Callable[[bytes], object]) -> None:
            writer(store, images, write, cancel=cancel)

        if dest == "-":
            assert self._stdout is not None
            return StreamExport(self._stdout, fill, exported)
        with tell.task(dest, f"writing {dest}"):
            return write_aside(dest, fill, exported)


class _DirectoryExport:
    """Blobs are harmless in a layout until index.json names them, so all is done at the end."""

    def __init__(
        self,
        store: Store,
        images: list[ArchiveImage],
        path: str,
        cancel: CancelToken,
        exported: Exported,
    ) -> None:
        self._store = store
        self._images = images
        self._path = path
        self._cancel = cancel
        self._exported = exported

    def finalize(self) -> Exported:
        write_oci_directory(self._store, self._images, self._path, cancel=self._cancel)
        return self._exported

    def discard(self) -> None:
        """Nothing was written."""
