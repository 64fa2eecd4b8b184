# SPDX-License-Identifier: Apache-2.0
"""`type=oci` and `type=docker`: the result as an archive, or as an OCI image layout directory."""

from __future__ import annotations

from lamina.exporter.assemble import Assembled, assemble
from lamina.exporter.destination import StreamExport, write_aside
from lamina.exporter.platforms import assemble_index
from lamina.exporter.ports import Exported
from lamina.exporter.progress import Told
from lamina.exporter.stored import all_names
from lamina.image.archive_write import (
    ArchiveImage,
    write_docker_archive,
    write_oci_archive,
    write_oci_directory,
)
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO, Protocol

    from lamina.exporter.ports import BuildResult, Output, PendingExport, PlatformResult
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken, Work

    class _Writer(Protocol):
        def __call__(
            self,
            store: Store,
            images: Sequence[ArchiveImage],
            write: Callable[[bytes], object],
            /,
            *,
            cancel: CancelToken,
        ) -> object: ...


class _ArchiveExporter:
    """Assembles the image in the store, unnamed, and copies it out."""

    _write: _Writer

    def __init__(self, output: Output, *, stdout: IO[bytes] | None, **_: object) -> None:
        self._output = output
        self._stdout = stdout

    def export(self, result: BuildResult, store: Store, *, work: Work) -> PendingExport:
        """See `Exporter.export`."""
        names = all_names(result, self._output)
        assembled = assemble(result, store, self._output, work=work)
        return self._pending(assembled, names, store, work=work)

    def export_platforms(
        self, results: Sequence[PlatformResult], store: Store, *, work: Work
    ) -> PendingExport:
        """See `Exporter.export_platforms`: an index of the images."""
        output = self._output
        index = assemble_index(results, store, output, work=work)
        described = replace(index, annotations=output.placed("index-descriptor"))
        names = all_names(results[0].result, output)
        return self._pending(Assembled(described, None), names, store, work=work)

    def _pending(
        self, assembled: Assembled, names: tuple[str, ...], store: Store, *, work: Work
    ) -> PendingExport:
        """The archive or directory with an image or index that is in the store."""
        images = [ArchiveImage(assembled.target, names)]
        exported = Exported(assembled.target.digest, assembled.config, names)
        dest = self._output.dest
        if not self._output.tar:
            return _DirectoryExport(store, images, dest, work.cancel, exported)

        def fill(write: Callable[[bytes], object]) -> None:
            self._write(store, images, write, cancel=work.cancel)

        if dest == "-":
            assert self._stdout is not None
            return StreamExport(self._stdout, fill, exported)
        with Told(work, dest, f"writing {dest}"):
            return write_aside(dest, fill, exported)


class OciExporter(_ArchiveExporter):
    """`type=oci`: an OCI image layout."""

    _write = staticmethod(write_oci_archive)


class DockerExporter(_ArchiveExporter):
    """`type=docker`: what `docker load` reads."""

    _write = staticmethod(write_docker_archive)


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
