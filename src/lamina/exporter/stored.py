# SPDX-License-Identifier: Apache-2.0
"""`type=image`: the result as an image in the store."""

from __future__ import annotations

from lamina.exporter.assemble import Assembled, assemble
from lamina.exporter.ports import Exported
from lamina.image.names import set_names
from lamina.image.told import tell_image
from lamina.spec.reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.exporter.ports import BuildResult, Output, PlatformResult
    from lamina.store.ports import Store
    from lamina.tasks import Work


class StoredExporter:
    """Makes the image; its names are set when it is finalised."""

    def __init__(self, output: Output, **_: object) -> None:
        self._output = output

    def export(self, result: BuildResult, store: Store, *, work: Work) -> StoredExport:
        """See `Exporter.export`."""
        names = all_names(result, self._output)
        assembled = assemble(result, store, self._output, work=work)
        if self._output.unpack:
            from lamina.image.unpack import ensure_snapshot
            from lamina.image.view import Image

            stack = Image.open(store, assembled.target).config().diff_ids
            ensure_snapshot(store, stack, work=work)
        return StoredExport(store, assembled, names)

    def export_platforms(
        self, results: Sequence[PlatformResult], store: Store, *, work: Work
    ) -> StoredExport:
        """See `Exporter.export_platforms`: what is named is an index."""
        from lamina.exporter.platforms import assemble_index

        index = assemble_index(results, store, self._output, work=work)
        names = all_names(results[0].result, self._output)
        return StoredExport(store, Assembled(index, None), names)


class StoredExport:
    """An image without its names."""

    def __init__(self, store: Store, assembled: Assembled, names: tuple[str, ...]) -> None:
        self._store = store
        self._assembled = assembled
        self._names = names

    def finalize(self) -> Exported:
        """Set the names, all or none; without names the image is kept as dangling."""
        set_names(self._store, self._names, self._assembled.target)
        tell_image(self._store, "create", self._assembled.target)
        tagged = [Reference.parse(name).familiar() for name in self._names]
        tell_image(self._store, "tag", self._assembled.target, names=tagged)
        return Exported(self._assembled.target.digest, self._assembled.config, self._names)

    def discard(self) -> None:
        """Nothing: GC removes blobs that no name reaches."""


def all_names(result: BuildResult, output: Output) -> tuple[str, ...]:
    """The result's names and those of `name=`, normalised, each once. Raises InvalidReference."""
    more = [str(Reference.parse(name).with_default_tag()) for name in output.names]
    return tuple(dict.fromkeys([*result.names, *more]))
