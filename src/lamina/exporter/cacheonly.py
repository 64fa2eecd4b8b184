# SPDX-License-Identifier: Apache-2.0
"""`type=cacheonly`: nothing is exported; the build fills the cache, that is all."""

from __future__ import annotations

from lamina.exporter.ports import Exported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.events import Emitter
    from lamina.exporter.ports import BuildResult, PendingExport
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken


class NoExporter:
    """Makes nothing."""

    def export(
        self, result: BuildResult, store: Store, *, emit: Emitter, cancel: CancelToken
    ) -> PendingExport:
        """See `Exporter.export`."""
        return _Nothing()


class _Nothing:
    def finalize(self) -> Exported:
        """There is nothing to set."""
        return Exported(None, None)

    def discard(self) -> None:
        """There is nothing to remove."""
