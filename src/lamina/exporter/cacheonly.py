# SPDX-License-Identifier: Apache-2.0
"""`type=cacheonly`: nothing is exported; the build fills the cache, that is all."""

from __future__ import annotations

from lamina.exporter.ports import Exported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.exporter.ports import BuildResult, Output, PendingExport, PlatformResult
    from lamina.store.ports import Store
    from lamina.tasks import Work


class NoExporter:
    """Makes nothing."""

    def __init__(self, output: Output, **_: object) -> None: ...

    def export(self, result: BuildResult, store: Store, *, work: Work) -> PendingExport:
        """See `Exporter.export`."""
        return _Nothing()

    def export_platforms(
        self, results: Sequence[PlatformResult], store: Store, *, work: Work
    ) -> PendingExport:
        """See `Exporter.export_platforms`."""
        return _Nothing()


class _Nothing:
    def finalize(self) -> Exported:
        """There is nothing to set."""
        return Exported(None, None)

    def discard(self) -> None:
        """There is nothing to remove."""
