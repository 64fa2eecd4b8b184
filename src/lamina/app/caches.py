# SPDX-License-Identifier: Apache-2.0
"""`--cache-from` and `--cache-to` of a build: `Caches` joins `lamina.buildcache` to the use case.

An imported cache may name a layer that it then cannot give. That fails the attempt to build, and
the build begins again without the records that need the layer. What was told of an earlier attempt
is not told again, and its failure not at all. Every attempt knows at least one lost layer more than
the one before it, so there is a last one.
"""

from __future__ import annotations

from lamina.buildcache.codec import INLINE_FIELD, encode_inline
from lamina.buildcache.collecting import collect_images, collect_records, of_stacks
from lamina.buildcache.exporting import CacheExport, DirectoryPlace, RegistryPlace
from lamina.buildcache.importing import Imports
from lamina.dockerfile.lower import ResolvedImage
from lamina.errors import LaminaError
from lamina.events import Diagnostic, Notice, Outcome, Severity, VertexDone, VertexPlanned
from lamina.exporter.table import row_of
from lamina.plan.ops import ImageSource
from lamina.spec.document import DocumentTooLarge
from lamina.spec.platform import Platform
from lamina.spec.reference import Reference
from lamina.start.record import replace
from lamina.system.paths import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from lamina.app.buildrequest import BuildRequest, Planned, Target
    from lamina.app.wiring import BuildHost
    from lamina.buildcache.codec import Remembered
    from lamina.buildcache.options import CacheTo
    from lamina.builder.build import Ended
    from lamina.dockerfile.lower import ImageRequest
    from lamina.events import Event
    from lamina.exporter.ports import BuildResult
    from lamina.plan.graph import Vertex
    from lamina.registry.client import Registries
    from lamina.spec.digest import Digest, Stack
    from lamina.store.ports import Store
    from lamina.tasks import Work


class Caches:
    """The imports and exports of one build; a context manager that ends their threads."""

    def __init__(
        self, targets: Sequence[Target], *, store: Store, host: BuildHost, work: Work
    ) -> None:
        self._targets = targets
        self._store = store
        self._host = host
        self._work = work
        self._registries: Registries | None = None
        self._planned: set[Digest] = set()
        self._done: set[Digest] = set()
        self._ran: dict[Digest, Stack | None] = {}
        self._held: list[VertexDone] = []
        self._is_repeated = False
        self.imports = self._open_imports()
        self._exports: dict[str, list[CacheExport]] = {}
        for target in targets:
            specs = [spec for spec in target.request.cache_to if spec.type != "inline"]
            self._exports[target.name] = [self._open_export(spec) for spec in specs]
        self._exports_of: dict[Digest, list[CacheExport]] = {}  # by vertex

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for export in self._every_export():
            export.close()
        registries, self._registries = self._registries, None
        if registries is not None:
            registries.close()

    def _connected(self) -> Registries:
        if self._registries is None:
            self._registries = self._host.registries()
        return self._registries

    def _open_imports(self) -> Imports | None:
        places = tuple(place for target in self._targets for place in target.request.cache_from)
        if not places:
            return None

        def pull(reference: str, platform: str) -> None:
            self._host.pull(reference, Platform.parse(platform), work=self._work)

        return Imports(places, self._store, registries=self._connected, pull=pull, work=self._work)

    def _open_export(self, spec: CacheTo) -> CacheExport:
        place = (
            DirectoryPlace(spec.dest, spec.tag, self._work.clock)
            if spec.type == "local"
            else RegistryPlace(spec.ref, self._store, self._connected(), self._work.clock)
        )
        return CacheExport(spec, place, self._store, imports=self.imports, work=self._work)

    def _every_export(self) -> list[CacheExport]:
        return [export for exports in self._exports.values() for export in exports]

    # Attempts -------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Pass an event of the build on, unless an earlier attempt told it. Failures wait until it
        is clear that there is no other attempt.
        """
        if isinstance(event, VertexDone):
            if event.outcome in {Outcome.FAILED, Outcome.CANCELLED} and self.imports is not None:
                self._held.append(event)
                return
            if event.vertex in self._done and event.outcome is Outcome.CACHED:
                return
            self._done.add(event.vertex)
        elif isinstance(event, VertexPlanned):
            if event.vertex in self._planned:
                return
            self._planned.add(event.vertex)
        elif isinstance(event, Diagnostic) and self._is_repeated and event.span is not None:
            return
        self._work.emit(event)

    def begins_again(self) -> bool:
        """Whether the attempt that just failed did so for a lost layer: then make another one."""
        if self.imports is None or not self.imports.is_to_repeat():
            self.end_attempts()
            return False
        self._held.clear()
        self._is_repeated = True
        self._work.emit(
            Notice("an imported cache is not what it promised: building without its layers")
        )
        return True

    def end_attempts(self) -> None:
        """Tell the failures that were held back."""
        for event in self._held:
            self._work.emit(event)
        self._held.clear()

    def expect(self, targets: Sequence[Planned]) -> None:
        """The solve that begins is of these plans."""
        self._exports_of = {}
        for each in targets:
            for vertex in each.plan.vertices:
                exports = self._exports_of.setdefault(vertex.digest, [])
                exports += self._exports[each.target.name]

    def ended(self, ended: Ended) -> Ended:
        """How far the attempts got together: steps that ran in an earlier one ran."""
        for digest, (outcome, stack) in ended.ends.items():
            if outcome is Outcome.RAN:
                self._ran[digest] = stack
        ends = dict(ended.ends)
        for digest, stack in self._ran.items():
            if digest in ends:
                ends[digest] = (Outcome.RAN, ends[digest][1] or stack)
        return replace(ended, ends=ends)

    def origins(self) -> Mapping[Digest, str]:
        """By vertex the imported cache that its result is from."""
        return self.imports.used if self.imports is not None else {}

    # Base images ----------------------------------------------------------------------------

    def find_image(self, request: ImageRequest) -> ResolvedImage | None:
        """A base image that is not in the store, as an imported cache knows it.

        Its registry is asked what the name means now, if it answers: a cache makes no image stale.
        """
        if self.imports is None:
            return None
        reference, platform = request.key
        found = self.imports.image(reference, platform)
        if found is None:
            return None
        if "@" not in reference:
            try:
                current = self._current(reference)
            except LaminaError:
                current = found.root  # offline: what the cache's maker saw
                self._work.emit(
                    Notice(
                        f"{reference} as the cache {found.origin} knows it: its registry does not say"
                    )
                )
            if current != found.root:
                return None
        self.imports.take_image(reference, platform, found.config)
        return ResolvedImage(reference, found.manifest, found.config)

    def _current(self, reference: str) -> Digest | None:
        parsed = Reference.parse(reference)
        repository = self._connected().repository(parsed)
        head = repository.head(parsed.tag) or repository.resolve(parsed.tag).descriptor
        return head.digest

    # The build ------------------------------------------------------------------------------

    def made(self, vertex: Vertex, stack: Stack) -> None:
        """Begin to export a step that ended."""
        for export in self._exports_of[vertex.digest]:
            if export.spec.max_mode or vertex.meta.exported:
                export.made(stack)

    def bring_results(self, request: BuildRequest, results: Sequence[BuildResult]) -> None:
        """Have the layers of the results here, if an output needs them."""
        if self.imports is None:
            return
        outputs = request.outputs
        if not outputs or any(row_of(output.type).needs_layers for output in outputs):
            for result in results:
                self.imports.bring(result.diff_ids, self._work.cancel)

    def _records(self, planned: Planned, ended: Ended) -> list[Remembered]:
        return collect_records(planned.plan, self._store, ended=ended, imports=self.imports)

    def with_inline(
        self, planned: Planned, results: list[BuildResult], ended: Ended
    ) -> list[BuildResult]:
        """The results with cache records in their configs, if that was asked for."""
        request = planned.target.request
        if all(spec.type != "inline" for spec in request.cache_to):
            return results
        if request.epoch is not None or request.squash:
            why = "--squash" if request.squash else "SOURCE_DATE_EPOCH"
            text = f"inline cache is left out: with {why} the image has other layers than the steps"
            self._work.emit(Diagnostic(Severity.WARNING, "", text))
            return results
        self._keep()
        records = self._records(planned, ended)
        cached = []
        for result in results:
            try:
                text = encode_inline(of_stacks(records, [result.diff_ids]), result.diff_ids)
                fields = (*result.config.unknown, (INLINE_FIELD, text))
                config = replace(result.config, unknown=fields)
                config.serialise()
            except DocumentTooLarge as error:
                text = f"inline cache is left out: with it {error.what}"
                self._work.emit(Diagnostic(Severity.WARNING, "", text))
                config = result.config
            cached.append(replace(result, config=config))
        return cached

    def export(
        self, targets: Sequence[Planned], stacks: Mapping[str, Sequence[Stack]], ended: Ended
    ) -> None:
        """Export the caches of every target, whose results are `stacks`, and keep what was imported.

        Raises:
            LaminaError: an export failed that may not (`ignore-error`).
        """
        self._keep()
        for each in targets:
            if self._exports[each.target.name]:
                self._export(each, stacks[each.target.name], ended)

    def _keep(self) -> None:
        if self.imports is not None:
            self.imports.keep()

    def _export(self, planned: Planned, stacks: Sequence[Stack], ended: Ended) -> None:
        records = self._records(planned, ended)
        images = collect_images(planned.plan, self._store, self.imports)
        bases = frozenset(
            diff_id
            for vertex in planned.plan.vertices
            if isinstance(vertex.op, ImageSource)
            for diff_id in vertex.op.diff_ids
        )
        for export in self._exports[planned.target.name]:
            chosen = records if export.spec.max_mode else of_stacks(records, stacks)
            try:
                export.finish(chosen, images, bases)
            except (LaminaError, OSError) as error:
                if isinstance(error, OSError):
                    error = failure(error, f"cannot export the cache to {export.spec}")
                if not export.spec.ignore_error:
                    raise error.about(f"exporting cache to {export.spec}") from error
                text = f"the cache was not exported to {export.spec}: {error.what}"
                self._work.emit(Diagnostic(Severity.WARNING, "", text))
