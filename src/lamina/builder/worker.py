# SPDX-License-Identifier: Apache-2.0
"""The solver's worker: digests selections, looks records up, has layers made, records results.

A result is recorded only when its layer is in the store: first the blob or snapshot, then the
layer's record, then the cache records.
"""

from __future__ import annotations

import os

from lamina.errors import LaminaError, SourceError
from lamina.events import Notice
from lamina.plan.ops import Exec
from lamina.spec.identity import chain_ids
from lamina.start.lowlevel import allocate_lock
from lamina.store.ports import CacheRecord

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.builder.explaining import Explainer
    from lamina.builder.making import Maker
    from lamina.builder.options import SolveOptions
    from lamina.builder.ports import Imported
    from lamina.builder.scratch import Scratch
    from lamina.builder.sources import Sources
    from lamina.events import Emitter
    from lamina.plan.graph import Plan, Vertex
    from lamina.solver.driver import Made
    from lamina.solver.keys import Key
    from lamina.solver.stacks import Form
    from lamina.spec.digest import ChainID, Digest, Stack
    from lamina.spec.span import Span
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken


def _no_key(vertex: Digest) -> Key | None:  # noqa: ARG001  # the signature of Scheduler.key_of
    return None


def _nowhere(key: str) -> str:  # noqa: ARG001  # the signature of Imported.origin_of
    return ""


class BuildWorker:
    """See `lamina.solver.driver.Worker`. `close` it after the solve, whatever happened."""

    def __init__(
        self,
        plan: Plan,
        *,
        sources: Sources,
        maker: Callable[[], Maker],
        store: Store,
        options: SolveOptions,
        scratch: Scratch,
        emit: Emitter,
        clock: Callable[[], float],
        unsure: frozenset[Digest] = frozenset(),
        key_of: Callable[[Digest], Key | None] = _no_key,
        imported: Imported | None = None,
        on_made: Callable[[Vertex, Stack], None] | None = None,
    ) -> None:
        self._plan = plan
        self._sources = sources
        self._new_maker = maker
        self._maker: Maker | None = None
        self._store = store
        self._options = options
        self._scratch = scratch
        self._emit = emit
        self._clock = clock
        self._unsure = unsure
        self._key_of = key_of
        self._imported = imported
        self._on_made = on_made
        self._began = clock()
        self._explains: Explainer | None = None
        self._forms: dict[Digest, Form] | None = None
        self._usable: set[ChainID] = set()
        self._gone: set[Digest] = set()  # vertices with a record whose layers are not here
        self._reported: set[Digest] = set()  # those of which it was told
        self._guard = allocate_lock()

    def close(self) -> None:
        """Store what was learned of the contexts' files and free every descriptor."""
        try:
            if self._maker is not None:
                self._maker.close()
        finally:
            self._sources.close()

    def select(
        self,
        vertex: Vertex,
        positions: tuple[int, ...],
        inputs: tuple[Stack | None, ...],
        *,
        is_probe: bool,
    ) -> tuple[tuple[int, Digest], ...]:
        """The digests of what these uses (`solver.keys.uses`) take from their inputs."""
        digest = self._sources.probed if is_probe else self._sources.selected
        with _Located(vertex):
            return tuple((p, digest(vertex, p, inputs)) for p in positions)

    # Cache records --------------------------------------------------------------------------

    def look_up(self, vertex: Vertex, keys: tuple[Key, ...]) -> Stack | None:
        """The first usable record's result; every key gets a record of it. What was imported is
        asked when the store has none.
        """
        trusted = keys[1:] if vertex.digest in self._unsure else keys
        found = self._look_up_here(vertex, keys, trusted)
        if found is None and self._imported is not None and trusted:
            found = self._imported.look_up(trusted, fits=self._fits(vertex))
            if found is not None:
                self._imported.take(vertex.digest, trusted, self._records(vertex, keys, found))
        if found is None and vertex.digest in self._gone - self._reported:
            self._reported.add(vertex.digest)
            self._emit(Notice(f"cached layers of {vertex.meta.name} are gone: it runs again"))
        return found

    def _fits(self, vertex: Vertex) -> Callable[[Stack], bool]:
        """Whether a result can be the vertex's at all; asked of what other machines say."""
        from lamina.solver.stacks import forms, has_form

        if self._forms is None:
            self._forms = forms(self._plan)
        form = self._forms[vertex.digest]
        return lambda result: has_form(result, form)

    def _look_up_here(
        self, vertex: Vertex, keys: tuple[Key, ...], trusted: tuple[Key, ...]
    ) -> Stack | None:
        metadata = self._store.metadata
        for start, key in enumerate(trusted):
            found = metadata.get_cache([k.digest for k in trusted] if not start else [key.digest])
            if found is None:
                if not start:
                    return None
                continue
            if self._is_usable(found.result):
                missing = [k for k in keys if k.digest != found.key]
                if missing:
                    self._record(vertex, tuple(missing), found.result)
                return found.result
            self._gone.add(vertex.digest)
        return None

    def _is_usable(self, result: Stack) -> bool:
        """Whether every layer of the result is here, as a blob or as a snapshot."""
        store = self._store
        for chain, diff_id in zip(chain_ids(result), result, strict=True):
            if chain in self._usable:
                continue
            layer = store.metadata.get_layer(diff_id)
            if layer is None:
                return False
            has_blob = any(store.content.exists(blob.digest) for blob in layer.blobs)
            if not has_blob and not store.snapshots.exists(chain):
                return False
            self._usable.add(chain)
        return True

    def _record(self, vertex: Vertex, keys: tuple[Key, ...], result: Stack) -> None:
        """Store the result under the keys."""
        self._store.metadata.put_cache(self._records(vertex, keys, result))

    def _records(self, vertex: Vertex, keys: tuple[Key, ...], result: Stack) -> list[CacheRecord]:
        """The records of the result; the first one gets what was selected beside it."""
        now = self._clock()
        explainer = self._explainer()
        name = vertex.meta.name
        files = self._sources.listing(vertex)
        records = []
        for key in keys:
            tree = explainer.annotate(vertex, key.tree, files)
            records.append(CacheRecord(key.digest, result, tree, name, now))
            files = []
        return records

    def _explainer(self) -> Explainer:
        """What tells why steps run; made when the first one does."""
        with self._guard:
            if self._explains is None:
                from lamina.builder.explaining import Explainer

                site, history = self._sources.site, self._store.key_history
                imported = self._imported
                self._explains = Explainer(
                    self._plan,
                    history if imported is None else imported.history(history, site),
                    site=site,
                    began=self._began,
                    key_of=self._key_of,
                    emit=self._emit,
                    origin_of=_nowhere if imported is None else imported.origin_of,
                )
        return self._explains

    def _explain(self, vertex: Vertex, keys: tuple[Key, ...]) -> None:
        forced = "--no-cache" if self._options.no_cache else ""
        if vertex.meta.ignore_cache:
            forced = f"--no-cache-filter {vertex.meta.stage}".rstrip()
        is_gone = vertex.digest in self._reported
        files = [] if forced or is_gone else self._sources.listing(vertex)
        self._explainer().explain(vertex, keys, files, is_forced=forced, is_gone=is_gone)

    # Running --------------------------------------------------------------------------------

    def run(
        self,
        vertex: Vertex,
        keys: tuple[Key, ...],
        inputs: tuple[Stack | None, ...],
        cancel: CancelToken,
    ) -> Made:
        """Make the vertex's layer and record the result under all keys.

        Two processes that build the same step at one time do it once: the second one waits.
        """
        from lamina.solver.driver import Made

        if self._options.no_cache or vertex.meta.ignore_cache:
            self._explain(vertex, keys)
            return Made(self._make(vertex, keys, inputs, cancel))
        name = keys[-1].digest.hex
        with self._scratch.lock(name, cancel=cancel, on_wait=lambda: self._waits(vertex)):
            found = self.look_up(vertex, keys)
            if found is not None:
                return Made(found, by_another=True)
            self._explain(vertex, keys)
            return Made(self._make(vertex, keys, inputs, cancel))

    def _waits(self, vertex: Vertex) -> None:
        self._emit(Notice(f"another build is at {vertex.meta.name}: waiting for it"))

    def _make(
        self,
        vertex: Vertex,
        keys: tuple[Key, ...],
        inputs: tuple[Stack | None, ...],
        cancel: CancelToken,
    ) -> Stack:
        with _Located(vertex):
            result = self._get_maker().make(vertex, inputs, cancel)
            if isinstance(vertex.op, Exec):
                result = self._settled(vertex, result, cancel)
            self._record(vertex, keys, result)
        if self._on_made is not None:
            self._on_made(vertex, result)
        return result

    def _settled(self, vertex: Vertex, made: Stack, cancel: CancelToken) -> Stack:
        """The result of the record that explained the run, if only times differ; else `made`."""
        nearest = self._explainer().nearest_to(vertex.digest)
        known = self._store.metadata.get_cache([nearest]) if nearest is not None else None
        if known is None:
            return made
        from lamina.builder.cutoff import is_alike

        alike = is_alike(self._store, made, known.result, cancel=cancel)
        return known.result if alike and self._is_usable(known.result) else made

    def prepare(self, *, executes: bool) -> None:
        """Become able to read any layer, remove what killed builds left, and get the executor, all
        while no thread exists: only such a process can change its namespaces.

        A failure is not reported here: the step that needs it reports it.
        """
        from lamina.store.working import sweep_working
        from lamina.system.userns import is_possible

        is_possible()
        if not executes:
            return
        sweep_working(self._store)
        try:
            self._get_maker().executor()
        except LaminaError:
            return

    def _get_maker(self) -> Maker:
        with self._guard:
            if self._maker is None:
                self._maker = self._new_maker()
            return self._maker


class _Located:
    """Adds the place in the Dockerfile to errors that rise from the block; what the host's system
    calls refused (a full disk, above all) becomes a LaminaError.
    """

    def __init__(self, vertex: Vertex) -> None:
        self._span: Span | None = vertex.meta.span

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        cause = error
        if isinstance(error, OSError):
            from lamina.system.paths import failure

            name = f" {os.fsdecode(error.filename)!r}" if error.filename else ""
            error = failure(error, f"cannot build this step{name}")
            if self._span is None:
                raise error from cause
        if self._span is None or isinstance(error, SourceError):
            return
        if isinstance(error, LaminaError):
            raise SourceError(
                error.what, span=self._span, kind=error.kind, hint=error.hint
            ) from cause
