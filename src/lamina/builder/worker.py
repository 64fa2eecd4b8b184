# SPDX-License-Identifier: Apache-2.0
"""The solver's worker: digests selections, looks records up, makes layers, records results.

A result is recorded only when its layer is in the store: first the blob or snapshot, then the
layer's record, then the cache records.
"""

from __future__ import annotations

import _thread
import os

from lamina.builder.context import Contexts
from lamina.builder.selection import select, select_path
from lamina.builder.tree import Tree
from lamina.errors import Kind, LaminaError, SourceError
from lamina.events import Notice, VertexLog
from lamina.plan.ops import (
    CopyAction,
    Exec,
    FileOp,
    GitSource,
    HttpSource,
    ImageSource,
    InlineSource,
    LocalSource,
    Merge,
)
from lamina.solver.keys import uses
from lamina.spec.digest import DiffID
from lamina.spec.identity import chain_id, chain_ids
from lamina.store.ports import CacheRecord
from lamina.store.working import sweep_working, unique_name, working_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Protocol

    from lamina.builder.build import SolveOptions
    from lamina.builder.changes import Base, Changes
    from lamina.builder.context import Context
    from lamina.builder.execution import FailedMounts, MountProvider, NetworkProvider
    from lamina.builder.explaining import Explainer
    from lamina.builder.mounting import Mounter, StepMounts
    from lamina.builder.scratch import Scratch
    from lamina.builder.selection import Match, Picked, Selection
    from lamina.container.ports import Executor
    from lamina.events import Emitter
    from lamina.layer.create import CreatedLayer
    from lamina.layer.entry import Items
    from lamina.plan.graph import Edge, Plan, Vertex
    from lamina.plan.mounts import BindMount, CacheMount
    from lamina.plan.ops import FileAction
    from lamina.solver.driver import Made
    from lamina.solver.keys import Key, Use
    from lamina.spec.digest import ChainID, Digest
    from lamina.spec.span import Span
    from lamina.store.ports import KeyHistory, Store
    from lamina.tasks import CancelToken

    Result = tuple[DiffID, ...]

    class _Closable(Protocol):
        def close(self) -> None: ...

    class Fetcher(Protocol):
        """What brings remote sources here. Any thread may call it."""

        def download(self, op: HttpSource, *, cancel: CancelToken) -> int:
            """Have the source's content in the content store; its mtime in POSIX seconds."""

        def checkout(self, op: GitSource, *, cancel: CancelToken) -> str:
            """The path of a directory with the source's tree, which nobody changes."""

    class Imported(Protocol):
        """Results that other machines made. Any thread may call it."""

        def look_up(self, keys: Sequence[Key]) -> Result | None:
            """The result under the first of these keys; its layers need not be here yet."""

        def take(self, vertex: Digest, keys: Sequence[Key], records: list[CacheRecord]) -> None:
            """Note a result that is used; the records are for the store when it has the layers."""

        def bring(self, stack: Result, cancel: CancelToken) -> None:
            """Have every layer of the stack in the store that is known elsewhere only."""

        def history(self, own: KeyHistory, site: str) -> KeyHistory:
            """The store's history with what was imported."""

        def origin_of(self, key: str) -> str:
            """Where a key was imported from; empty if it was not."""


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
        store: Store,
        executor: Callable[[], Executor] | None,
        contexts: Mapping[str, Context],
        options: SolveOptions,
        network: NetworkProvider | None,
        scratch: Scratch,
        remote: Fetcher | None,
        emit: Emitter,
        clock: Callable[[], float],
        cancel: CancelToken | None,
        unsure: frozenset[Digest] = frozenset(),
        key_of: Callable[[Digest], Key | None] = _no_key,
        imported: Imported | None = None,
        on_made: Callable[[Vertex, Result], None] | None = None,
    ) -> None:
        self._plan = plan
        self._key_of = key_of
        self._imported = imported
        self._on_made = on_made
        self._began = clock()
        self._explains: Explainer | None = None
        self._explain_guard = _thread.allocate_lock()
        self._unsure = unsure
        self._vertices = {vertex.digest: vertex for vertex in plan.vertices}
        self._store = store
        self._executor = executor
        self._contexts = Contexts(
            contexts, store.metadata, clock=clock, git_modes=options.git_modes
        )
        self._options = options
        self._network = network
        self._scratch = scratch
        self._remote = remote
        self._checkouts: dict[GitSource, Tree] = {}
        self._emit = emit
        self._clock = clock
        self._cancel = cancel
        self._running: Executor | None = None
        self._selections: dict[tuple[Digest, int], Selection] = {}
        self._stage_trees: dict[Result, Tree] = {}
        self._bases: dict[Result, Base] = {}
        self._made: dict[Result, Changes] = {}  # layers composed by this solve
        self._usable: set[ChainID] = set()
        self._gone: set[Digest] = set()  # vertices with a record whose layers are not here
        self._reported: set[Digest] = set()  # those of which it was told
        self._closables: list[_Closable] = []
        self._mounter: Mounter | None = None
        self._guard = _thread.allocate_lock()

    def close(self) -> None:
        """Store what was learned of the contexts' files and free every descriptor."""
        try:
            self._contexts.close()
        finally:
            for closable in self._closables:
                closable.close()
            self._closables.clear()

    # Selections -----------------------------------------------------------------------------

    def select(
        self, vertex: Vertex, positions: tuple[int, ...], inputs: tuple[Result | None, ...]
    ) -> tuple[tuple[int, Digest], ...]:
        """The digests of what these uses (`solver.keys.uses`) take from their inputs."""
        with _Located(vertex):
            return tuple((p, self._selected(vertex, p, inputs)) for p in positions)

    def _selected(self, vertex: Vertex, position: int, inputs: tuple[Result | None, ...]) -> Digest:
        op = self._source_op(vertex, uses(vertex.op)[position])
        if isinstance(op, InlineSource | HttpSource | GitSource):
            from lamina.solver.keys import given_content

            return given_content(op)  # nothing is fetched for a cached step
        return self._selection(vertex, position, inputs).digest

    def _selection(
        self, vertex: Vertex, position: int, inputs: tuple[Result | None, ...]
    ) -> Selection:
        known = self._selections.get((vertex.digest, position))
        if known is not None:
            return known
        use = uses(vertex.op)[position]
        op = self._source_op(vertex, use)
        found = self._given(op)
        if found is None:
            found = self._select(self._source(vertex, use, inputs), use, op)
        self._selections[vertex.digest, position] = found
        return found

    def _select(self, tree: Tree, use: Use, op: object) -> Selection:
        cache = self._contexts.cache(op) if isinstance(op, LocalSource) else None
        if not isinstance(use, CopyAction):
            return select_path(tree, use.path, cache=cache, cancel=self._cancel)
        return select(
            tree,
            use.patterns,
            cache=cache,
            cancel=self._cancel,
            exclude=use.exclude,
            parents=use.parents,
        )

    def _given(self, op: object) -> Selection | None:
        """The selection of a source that is one known file, or several."""
        if isinstance(op, InlineSource):
            from lamina.builder.given import select_inline

            return select_inline(op)
        if isinstance(op, HttpSource):
            from lamina.builder.given import select_download

            mtime = self._fetcher().download(op, cancel=self._token())
            return select_download(op, self._store.content, mtime=mtime)
        return None

    def _token(self) -> CancelToken:
        from lamina.tasks import CancelToken

        return self._cancel if self._cancel is not None else CancelToken()

    def _fetcher(self) -> Fetcher:
        if self._remote is None:
            text = "this build may not use the network, and needs a URL or a git repository"
            raise LaminaError(text, kind=Kind.UNSUPPORTED)
        return self._remote

    def _source_op(self, vertex: Vertex, use: Use) -> object:
        assert use.source is not None
        edge: Edge | None = vertex.inputs[use.source]
        return self._vertices[edge.vertex].op if edge is not None else None

    def _source(self, vertex: Vertex, use: Use, inputs: tuple[Result | None, ...]) -> Tree:
        op = self._source_op(vertex, use)
        if isinstance(op, LocalSource):
            return self._contexts.tree(op)
        if isinstance(op, InlineSource | HttpSource):
            return Tree(-1, what="the Dockerfile", ignore=None, keeps_owner=False)
        if isinstance(op, GitSource):
            return self._checkout(op)
        assert use.source is not None
        return self._stage_tree(inputs[use.source] or ())

    def _checkout(self, op: GitSource) -> Tree:
        with self._guard:
            known = self._checkouts.get(op)
            if known is None:
                path = self._fetcher().checkout(op, cancel=self._token())
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                known = Tree(fd, what="the git repository", ignore=None, keeps_owner=False)
                self._closables.append(known)
                self._checkouts[op] = known
        return known

    def _stage_tree(self, result: Result) -> Tree:
        known = self._stage_trees.get(result)
        if known is None:
            made = Tree(self._mount(result), what="the stage", ignore=None, keeps_owner=True)
            # another thread may have mounted it at the same time: a selection and the copy of it
            # must see one mount, because the device number is part of a file's stamp
            with self._guard:
                known = self._stage_trees.setdefault(result, made)
                self._closables.append(made)
        return known

    def _mount(self, result: Result) -> int:
        """A descriptor of the result's merged tree, mounted nowhere."""
        from lamina.image.unpack import ensure_snapshot
        from lamina.system.mounts import overlay_fd
        from lamina.tasks import CancelToken

        cancel = self._cancel if self._cancel is not None else CancelToken()
        self._bring(result, cancel)
        chain = ensure_snapshot(self._store, result, emit=self._emit, cancel=cancel)
        return overlay_fd(self._store.snapshots.view(chain))

    def _base(self, result: Result) -> Base:
        """The tree below a layer that is being composed, to look at.

        Layers composed by this very solve are asked in memory, so a row of COPYs unpacks nothing.
        """
        known = self._bases.get(result)
        if known is not None:
            return known
        from lamina.builder.changes import EmptyBase, MountedBase

        base: Base
        chain = chain_id(result)
        if chain is None:
            base = EmptyBase()
        elif result in self._made and not self._store.snapshots.exists(chain):
            base = self._made[result]
        else:
            base = mounted = MountedBase(self._mount(result))
            self._closables.append(mounted)
        self._bases[result] = base
        return base

    # Cache records --------------------------------------------------------------------------

    def look_up(self, vertex: Vertex, keys: tuple[Key, ...]) -> Result | None:
        """The first usable record's result; every key gets a record of it. What was imported is
        asked when the store has none.
        """
        trusted = keys[1:] if vertex.digest in self._unsure else keys
        found = self._look_up_here(vertex, keys, trusted)
        if found is None and self._imported is not None and trusted:
            found = self._imported.look_up(trusted)
            if found is not None:
                self._imported.take(vertex.digest, trusted, self._records(vertex, keys, found))
        if found is None and vertex.digest in self._gone - self._reported:
            self._reported.add(vertex.digest)
            self._emit(Notice(f"cached layers of {vertex.meta.name} are gone: it runs again"))
        return found

    def _bring(self, result: Result, cancel: CancelToken) -> None:
        if self._imported is not None:
            self._imported.bring(result, cancel)

    def _look_up_here(
        self, vertex: Vertex, keys: tuple[Key, ...], trusted: tuple[Key, ...]
    ) -> Result | None:
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

    def _is_usable(self, result: Result) -> bool:
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

    def _record(self, vertex: Vertex, keys: tuple[Key, ...], result: Result) -> None:
        """Store the result under the keys."""
        self._store.metadata.put_cache(self._records(vertex, keys, result))

    def _records(self, vertex: Vertex, keys: tuple[Key, ...], result: Result) -> list[CacheRecord]:
        """The records of the result; the first one gets what was selected beside it."""
        now = self._clock()
        explainer = self._explainer()
        name = vertex.meta.name
        files = self._listing(vertex)
        records = []
        for key in keys:
            tree = explainer.annotate(vertex, key.tree, files)
            records.append(CacheRecord(key.digest, result, tree, name, now))
            files = []
        return records

    def _source_of(self, vertex: Vertex, use: Use) -> Tree:
        """The tree that a selection was made in: how owners and modes count there."""
        op = self._source_op(vertex, use)
        if isinstance(op, LocalSource):
            return self._contexts.tree(op)
        is_given = isinstance(op, InlineSource | HttpSource | GitSource)
        return Tree(-1, what="the stage", ignore=None, keeps_owner=not is_given)

    def _listing(self, vertex: Vertex) -> list[dict[str, str]]:
        """What each use took from its input, as far as it is known."""
        found = uses(vertex.op)
        if not found:
            return []
        from lamina.builder.selection import listing

        rows: list[dict[str, str]] = []
        for position, use in enumerate(found):
            selection = self._selections.get((vertex.digest, position))
            if selection is None:
                rows.append({})
            else:
                rows.append(listing(selection, self._source_of(vertex, use)))
        return rows

    def _explainer(self) -> Explainer:
        """What tells why steps run; made when the first one does."""
        with self._explain_guard:
            if self._explains is None:
                from lamina.builder.explaining import Explainer

                site, history = self._contexts.site(), self._store.key_history
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
        files = [] if forced or is_gone else self._listing(vertex)
        self._explainer().explain(vertex, keys, files, is_forced=forced, is_gone=is_gone)

    # Running --------------------------------------------------------------------------------

    def run(
        self,
        vertex: Vertex,
        keys: tuple[Key, ...],
        inputs: tuple[Result | None, ...],
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
        inputs: tuple[Result | None, ...],
        cancel: CancelToken,
    ) -> Result:
        with _Located(vertex):
            base = (inputs[0] if inputs else None) or ()
            op = vertex.op
            if isinstance(op, Exec):
                result = self._execute(vertex, op, base, inputs, cancel)
            else:
                assert isinstance(op, FileOp)
                result = self._apply(vertex, op, base, inputs, cancel)
            self._record(vertex, keys, result)
        if self._on_made is not None:
            self._on_made(vertex, result)
        return result

    def prepare(self) -> None:
        """Remove what killed builds left, and get the executor while no thread exists: it may have to unshare this process's mounts.

        A failure is not reported here: the step that needs it reports it.
        """
        sweep_working(self._store)
        try:
            self._started_executor()
        except LaminaError:
            return

    def _started_executor(self) -> Executor:
        if self._running is None:
            if self._executor is None:
                text = "RUN needs an executor, and none was given"
                raise LaminaError(text, kind=Kind.UNSUPPORTED)
            self._running = self._executor()
        return self._running

    def _execute(
        self,
        vertex: Vertex,
        op: Exec,
        base: Result,
        inputs: tuple[Result | None, ...],
        cancel: CancelToken,
    ) -> Result:
        from lamina.builder.execution import Step, Tail, failed
        from lamina.image.unpack import ensure_snapshot
        from lamina.layer.walk import overlay_items

        executor = self._started_executor()
        self._bring(base, cancel)
        parent = ensure_snapshot(self._store, base, emit=self._emit, cancel=cancel)
        unique = working_key(f"build:{vertex.digest.short()}")
        tail = Tail()

        def on_output(stream: int, data: bytes) -> None:
            tail.add(data)
            self._emit(VertexLog(vertex.digest, stream, data, self._clock()))

        target = self._scratch.path(unique)
        with Step(self._store, key=unique, parent=parent, target=target) as step:
            status = step.run(
                op,
                executor,
                network=self._network,
                mounts=self._mounts(vertex, op, inputs, cancel) if op.mounts else None,
                limits=self._options.limits,
                on_output=on_output,
                cancel=cancel,
            )
            if status:
                error = failed(op, status, span=vertex.meta.span, output=tail.value())
                if self._options.on_failed is not None:
                    kept = step.keep(unique)
                    mounts = self._failed_mounts(vertex, op, inputs, kept) if op.mounts else None
                    error.keep(kept, op, mounts)
                raise error
            items = overlay_items(step.upper)
            is_exported = vertex.meta.exported
            created = self._write_layer(items, vertex, is_wanted=is_exported, cancel=cancel)
            result = (*base, created.diff_id)
            chain = chain_id(result)
            assert chain is not None
            step.commit(chain)
        return result

    def _mounts(
        self,
        vertex: Vertex,
        op: Exec,
        inputs: tuple[Result | None, ...],
        cancel: CancelToken,
    ) -> MountProvider:
        from lamina.builder.mounting import MountInput

        mounter = self._step_mounter()

        def found(mount: BindMount | CacheMount) -> MountInput:
            assert mount.source is not None
            if isinstance(self._source_op(vertex, mount), Exec | FileOp | ImageSource | Merge):
                self._bring(inputs[mount.source] or (), cancel)
                return MountInput(inputs[mount.source] or ())
            tree = self._source(vertex, mount, inputs)
            position = uses(op).index(mount)
            return MountInput(None, tree, self._selection(vertex, position, inputs))

        user = {"build": self._options.build, "step": vertex.meta.name}
        return lambda rootfs: mounter.mounted(op, rootfs, inputs=found, user=user, cancel=cancel)

    def _failed_mounts(
        self, vertex: Vertex, op: Exec, inputs: tuple[Result | None, ...], chain: ChainID
    ) -> FailedMounts:
        from contextlib import contextmanager

        from lamina.system.mounts import mounted
        from lamina.tasks import CancelToken

        @contextmanager
        def made() -> Iterator[StepMounts]:
            # the step's own token is set: its failure cancelled the other steps
            provider = self._mounts(vertex, op, inputs, self._cancel or CancelToken())
            target = self._scratch.path(working_key("failed"))
            os.mkdir(target, 0o700)
            try:
                with mounted(self._store.snapshots.view(chain), target), provider(target) as mounts:
                    yield mounts
            finally:
                os.rmdir(target)

        return made

    def _step_mounter(self) -> Mounter:
        from lamina.builder.mounting import Mounter

        with self._guard:
            if self._mounter is None:
                self._mounter = Mounter(
                    self._store,
                    self._scratch,
                    secrets=self._options.secrets,
                    agents=self._options.agents,
                    emit=self._emit,
                )
                self._closables.append(self._mounter)
            return self._mounter

    def _apply(
        self,
        vertex: Vertex,
        op: FileOp,
        base: Result,
        inputs: tuple[Result | None, ...],
        cancel: CancelToken,
    ) -> Result:
        from lamina.builder.changes import Changes

        changes = names = Changes(self._base(base))
        if op.owners is not None:
            names = Changes(self._base(inputs[op.owners] or ()))
        position = 0
        for action in op.actions:
            cancel.check()
            if isinstance(action, CopyAction):
                self._copy(changes, names, vertex, position, inputs, cancel)
                position += 1
            else:
                owner = self._owner(action, names) or (0, 0)
                place = changes.resolve(os.fsencode(action.path))
                now_ns = int(self._clock()) * 1_000_000_000
                changes.make_directories(place, owner=owner, mtime_ns=now_ns)
        created = self._write_layer(changes.items(), vertex, is_wanted=True, cancel=cancel)
        result = (*base, created.diff_id)
        self._made[result] = changes
        return result

    def _owner(self, action: FileAction, changes: Changes) -> tuple[int, int] | None:
        if action.owner is None:
            return None
        from lamina.builder.owner import find_owner

        return find_owner(action.owner, changes)

    def _copy(
        self,
        changes: Changes,
        names: Changes,
        vertex: Vertex,
        position: int,
        inputs: tuple[Result | None, ...],
        cancel: CancelToken,
    ) -> None:
        """Put one copy action into `changes`; users' names are looked up in `names`."""
        from lamina.builder.copying import copy_match

        action = _copies(vertex)[position]
        mode = None
        if action.mode is not None:
            from lamina.dockerfile.filemode import FileMode

            mode = FileMode.parse(action.mode)
        owner = self._owner(action, names)
        tree = self._source(vertex, action, inputs)
        selection = self._selection(vertex, position, inputs)
        for number, match in enumerate(selection.matches):
            cancel.check()
            if action.unpack and self._unpack(changes, tree, match, action, owner, cancel):
                continue
            copy_match(
                changes,
                tree,
                match,
                dest=os.fsencode(action.dest),
                owner=owner,
                mode=mode,
                inode_space=(position, number),
            )

    def _unpack(
        self,
        changes: Changes,
        tree: Tree,
        match: Match,
        action: CopyAction,
        owner: tuple[int, int] | None,
        cancel: CancelToken,
    ) -> bool:
        """Unpack a match that is an archive; False if it is not one."""
        from lamina.builder.archive import is_archive, new_spool, unpack
        from lamina.builder.copying import VerifiedStream

        picked = match.picked[0] if not match.is_dir else None
        if picked is None or (picked.given is None and not picked.digest):
            return False
        if picked.given is not None:
            return self._unpack_given(changes, picked, action, owner, cancel)
        with VerifiedStream(tree, picked) as stream:
            if not is_archive(stream):
                return False
        path = self._scratch.path(f"spool-{unique_name()}")
        spool = new_spool(path)
        self._closables.append(spool)
        with VerifiedStream(tree, match.picked[0]) as stream:
            unpack(
                changes,
                stream,
                dest=os.fsencode(action.dest),
                owner=owner,
                spool=spool,
                mtime_ns=match.picked[0].status.st_mtime_ns,
                cancel=cancel,
            )
            stream.verify()
        return True

    def _unpack_given(
        self,
        changes: Changes,
        picked: Picked,
        action: CopyAction,
        owner: tuple[int, int] | None,
        cancel: CancelToken,
    ) -> bool:
        from lamina.builder.archive import is_archive, new_spool, unpack
        from lamina.builder.given import GivenContent

        assert isinstance(picked.given, GivenContent)
        with picked.given.open() as stream:
            if not is_archive(stream):
                return False
        spool = new_spool(self._scratch.path(f"spool-{unique_name()}"))
        self._closables.append(spool)
        with picked.given.open() as stream:
            unpack(
                changes,
                stream,
                dest=os.fsencode(action.dest),
                owner=owner,
                spool=spool,
                mtime_ns=picked.status.st_mtime_ns,
                cancel=cancel,
            )
        return True

    def _write_layer(
        self, items: Items, vertex: Vertex, *, is_wanted: bool, cancel: CancelToken
    ) -> CreatedLayer:
        """The layer of `items`, recorded; its blob in the content store only if it `is_wanted`.

        A layer that no image gets is stored uncompressed: it is read once, to be unpacked.
        """
        from lamina.layer.create import create_layer
        from lamina.spec.descriptor import Descriptor
        from lamina.spec.mediatype import OCI_LAYER_OF

        store, options = self._store, self._options
        if not is_wanted:
            created = create_layer(items, None, cancel=cancel)
            store.metadata.put_layer(created.diff_id, created.size)
            return created
        is_exported = vertex.meta.exported
        compression = options.compression if is_exported else "uncompressed"
        level = options.level if is_exported else None
        ref = f"build {vertex.digest} {unique_name()}"
        with store.content.ingest(ref) as ingest:
            try:
                created = create_layer(
                    items, ingest.write, compression=compression, level=level, cancel=cancel
                )
                digest = ingest.commit(digest=created.digest, size=created.compressed_size)
            except BaseException:
                ingest.abort()
                raise
        blob = Descriptor(OCI_LAYER_OF[compression], digest, created.compressed_size)
        store.metadata.put_layer(created.diff_id, created.size, blob)
        return created


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


def _copies(vertex: Vertex) -> tuple[CopyAction, ...]:
    from lamina.solver.keys import copies

    assert isinstance(vertex.op, FileOp)
    return copies(vertex.op)
