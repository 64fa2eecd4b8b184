# SPDX-License-Identifier: Apache-2.0
"""`--cache-from` and `--cache-to` of a build: `Caches` joins `lamina.buildcache` to the use case.

A layer that an imported cache promised and does not give ends the attempt; the next one does not
believe what needs it. What was told of the first attempt is not told again, and its failure not at
all. Each repetition knows of at least one more lost layer, so they end.
"""

from __future__ import annotations

from lamina.errors import LaminaError
from lamina.events import Diagnostic, Notice, Outcome, Severity, VertexDone, VertexPlanned
from lamina.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol, Self

    from lamina.app.history import Recorder
    from lamina.app.wiring import BuildHost
    from lamina.buildcache.codec import Remembered
    from lamina.buildcache.exporting import CacheExport
    from lamina.buildcache.importing import Imports
    from lamina.buildcache.options import CacheFrom, CacheTo
    from lamina.dockerfile.lower import ImageRequest, ResolvedImage
    from lamina.events import Emitter, Event
    from lamina.exporter.output import Output
    from lamina.exporter.ports import BuildResult
    from lamina.plan.graph import Plan, Vertex
    from lamina.registry.client import Registries
    from lamina.spec.digest import DiffID, Digest
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

    Stack = tuple[DiffID, ...]

    class Request(Protocol):
        """What is read of a BuildRequest."""

        @property
        def cache_from(self) -> tuple[CacheFrom, ...]: ...
        @property
        def cache_to(self) -> tuple[CacheTo, ...]: ...
        @property
        def outputs(self) -> tuple[Output, ...]: ...
        @property
        def epoch(self) -> int | None: ...
        @property
        def squash(self) -> bool: ...

    class Target(Protocol):
        """What is read of a target of the build."""

        name: str
        recorder: Recorder

        @property
        def request(self) -> Request: ...
        @property
        def plan(self) -> Plan: ...


class Caches:
    """The imports and exports of one build; a context manager that ends their threads."""

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        store: Store,
        host: BuildHost,
        emit: Emitter,
        cancel: CancelToken,
        clock: Callable[[], float],
    ) -> None:
        self._targets = targets
        self._store = store
        self._host = host
        self._emit = emit
        self._cancel = cancel
        self._clock = clock
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
        from lamina.buildcache.importing import Imports

        def pull(reference: str, platform: str) -> None:
            from lamina.spec.platform import Platform

            self._host.pull(
                reference,
                Platform.parse(platform),
                emit=self._emit,
                cancel=self._cancel,
                clock=self._clock,
            )

        return Imports(
            places,
            self._store,
            registries=self._connected,
            pull=pull,
            emit=self._emit,
            cancel=self._cancel,
            clock=self._clock,
        )

    def _open_export(self, spec: CacheTo) -> CacheExport:
        from lamina.buildcache.exporting import (
            CacheExport,
            DirectoryPlace,
            RegistryPlace,
        )

        place = (
            DirectoryPlace(spec.dest, spec.tag, self._clock)
            if spec.type == "local"
            else RegistryPlace(spec.ref, self._store, self._connected(), self._clock)
        )
        return CacheExport(
            spec,
            place,
            self._store,
            imports=self.imports,
            emit=self._emit,
            cancel=self._cancel,
            clock=self._clock,
        )

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
        self._emit(event)

    def begins_again(self) -> bool:
        """Whether the attempt that just failed did so for a lost layer: then make another one."""
        if self.imports is None or not self.imports.is_to_repeat():
            self.end_attempts()
            return False
        self._held.clear()
        self._is_repeated = True
        for digest, (outcome, result) in self._targets[0].recorder.ends.items():
            if outcome is Outcome.RAN:
                self._ran[digest] = result
        self._emit(Notice("an imported cache is not what it promised: building without its layers"))
        return True

    def end_attempts(self) -> None:
        """Tell the failures that were held back."""
        for event in self._held:
            self._emit(event)
        self._held.clear()

    def solved(self, ends: dict[Digest, tuple[Outcome, Stack | None]]) -> None:
        """Steps that ran in an earlier attempt ran; remember what came from other machines."""
        for digest, result in self._ran.items():
            if digest in ends:
                ends[digest] = (Outcome.RAN, ends[digest][1] or result)
        if self.imports is not None:
            for target in self._targets:
                target.recorder.imported = self.imports.used

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
                self._emit(
                    Notice(
                        f"{reference} as the cache {found.origin} knows it: its registry does not say"
                    )
                )
            if current != found.root:
                return None
        from lamina.dockerfile.lower import ResolvedImage

        self.imports.take_image(reference, platform, found.config)
        return ResolvedImage(reference, found.manifest, found.config)

    def _current(self, reference: str) -> Digest | None:
        from lamina.spec.reference import Reference

        parsed = Reference.parse(reference)
        repository = self._connected().repository(parsed)
        head = repository.head(parsed.tag) or repository.resolve(parsed.tag).descriptor
        return head.digest

    # The build ------------------------------------------------------------------------------

    def made(self, vertex: Vertex, result: Stack) -> None:
        """Begin to export a step that ended."""
        for target in self._targets:
            for export in self._exports[target.name]:
                is_part = any(vertex.digest == each.digest for each in target.plan.vertices)
                if is_part and (export.spec.max_mode or vertex.meta.exported):
                    export.made(result)

    def bring_results(self, target: Target, results: Sequence[BuildResult]) -> None:
        """Have the layers of the results here, if an output needs them."""
        if self.imports is None:
            return
        if not all(output.type == "cacheonly" for output in target.request.outputs) or (
            not target.request.outputs
        ):
            for result in results:
                self.imports.bring(result.diff_ids, self._cancel)

    def _records(self, target: Target) -> list[Remembered]:
        from lamina.buildcache.collecting import collect_records

        recorder = target.recorder
        return collect_records(target.plan, self._store, recorder.ends, recorder.keys, self.imports)

    def with_inline(self, target: Target, results: list[BuildResult]) -> list[BuildResult]:
        """The results with cache records in their configs, if that was asked for."""
        if all(spec.type != "inline" for spec in target.request.cache_to):
            return results
        if target.request.epoch is not None or target.request.squash:
            why = "--squash" if target.request.squash else "SOURCE_DATE_EPOCH"
            text = f"inline cache is left out: with {why} the image has other layers than the steps"
            self._emit(Diagnostic(Severity.WARNING, "", text))
            return results
        from lamina.buildcache.codec import INLINE_FIELD, encode_inline
        from lamina.buildcache.collecting import of_stacks
        from lamina.spec.document import DocumentTooLarge

        self._keep()
        records = self._records(target)
        found = []
        for result in results:
            try:
                text = encode_inline(of_stacks(records, [result.diff_ids]), result.diff_ids)
                fields = (*result.config.unknown, (INLINE_FIELD, text))
                config = replace(result.config, unknown=fields)
                config.serialise()
            except DocumentTooLarge as error:
                text = f"inline cache is left out: with it {error.what}"
                self._emit(Diagnostic(Severity.WARNING, "", text))
                config = result.config
            found.append(replace(result, config=config))
        return found

    def export(self, stacks: Mapping[str, Sequence[Stack]]) -> None:
        """Export the caches of every target, whose results are `stacks`, and keep what was imported.

        Raises:
            LaminaError: an export failed that may not (`ignore-error`).
        """
        self._keep()
        for target in self._targets:
            exports = self._exports[target.name]
            if exports:
                self._export(target, exports, stacks[target.name])

    def _keep(self) -> None:
        if self.imports is not None:
            self.imports.keep()

    def _export(
        self, target: Target, exports: Sequence[CacheExport], stacks: Sequence[Stack]
    ) -> None:
        from lamina.buildcache.collecting import collect_images, of_stacks
        from lamina.plan.ops import ImageSource

        records = self._records(target)
        images = collect_images(target.plan, self._store, self.imports)
        bases = frozenset(
            diff_id
            for vertex in target.plan.vertices
            if isinstance(vertex.op, ImageSource)
            for diff_id in vertex.op.diff_ids
        )
        for export in exports:
            chosen = records if export.spec.max_mode else of_stacks(records, stacks)
            try:
                export.finish(chosen, images, bases)
            except (LaminaError, OSError) as error:
                if isinstance(error, OSError):
                    from lamina.system.paths import failure

                    error = failure(error, f"cannot export the cache to {export.spec}")
                if not export.spec.ignore_error:
                    raise error.about(f"exporting cache to {export.spec}") from error
                text = f"the cache was not exported to {export.spec}: {error.what}"
                self._emit(Diagnostic(Severity.WARNING, "", text))
