# SPDX-License-Identifier: Apache-2.0
"""Makes the layers of steps: runs commands, puts copies together, writes what came of it.

Not imported by a build that is fully cached.
"""

from __future__ import annotations

import os

from lamina.errors import Kind, LaminaError, never
from lamina.events import VertexLog
from lamina.plan.ops import CopyAction, Exec, FileOp, ImageSource, LayerOp, Merge, MkdirAction
from lamina.solver.keys import uses
from lamina.spec.identity import chain_id
from lamina.start.lowlevel import allocate_lock
from lamina.start.record import replace
from lamina.store.working import working_key
from lamina.system.process import unique_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from lamina.builder.changes import Base, Changes
    from lamina.builder.layeredbase import LayerDirectories
    from lamina.builder.mounting import Mounter, StepMounts
    from lamina.builder.options import SolveOptions
    from lamina.builder.ports import FailedMounts, MountProvider, NetworkProvider
    from lamina.builder.scratch import Scratch
    from lamina.builder.selection import Match, Picked
    from lamina.builder.sources import Sources
    from lamina.builder.tree import Tree
    from lamina.container.ports import Executor
    from lamina.image.newlayer import NewLayer
    from lamina.layer.create import CreatedLayer
    from lamina.layer.entry import Items
    from lamina.plan.graph import Plan, Vertex
    from lamina.plan.mounts import BindMount, CacheMount
    from lamina.plan.ops import FileAction
    from lamina.spec.digest import ChainID, Digest, Stack
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken, Work

    class _Closable(Protocol):
        def close(self) -> None: ...


class Maker:
    """Makes the layers of one solve. Any thread may call `make`; `close` it after the solve."""

    def __init__(
        self,
        sources: Sources,
        *,
        store: Store,
        executor: Callable[[], Executor] | None,
        options: SolveOptions,
        network: NetworkProvider | None,
        scratch: Scratch,
        work: Work,
        mounted: frozenset[Digest],
    ) -> None:
        """`mounted` are the vertices whose layers RUN steps mount (`mounted_copies`)."""
        self._mounted = mounted
        self._sources = sources
        self._store = store
        self._executor = executor
        self._options = options
        self._network = network
        self._scratch = scratch
        self._work = work
        self._running: Executor | None = None
        self._bases: dict[Stack, Base] = {}
        self._made: dict[Stack, Changes] = {}  # layers composed by this solve
        self._closables: list[_Closable] = []
        self._mounter: Mounter | None = None
        self._directories: LayerDirectories | None = None
        self._guard = allocate_lock()

    def close(self) -> None:
        """Free every descriptor."""
        for closable in self._closables:
            closable.close()
        self._closables.clear()

    def make(self, vertex: Vertex, inputs: tuple[Stack | None, ...], cancel: CancelToken) -> Stack:
        """The stack with the vertex's layer on top, in the store.

        Raises:
            LaminaError: StepFailed, or what a source or the store refused.
        """
        base = (inputs[0] if inputs else None) or ()
        op = vertex.op
        assert isinstance(op, LayerOp), op
        if isinstance(op, Exec):
            return self._execute(vertex, op, base, inputs, cancel)
        if isinstance(op, FileOp):
            return self._apply(vertex, op, base, inputs, cancel)
        return never(op)

    def executor(self) -> Executor:
        """The executor, started when first asked for. Raises kind UNSUPPORTED if there is none."""
        if self._running is None:
            if self._executor is None:
                text = "RUN needs an executor, and none was given"
                raise LaminaError(text, kind=Kind.UNSUPPORTED)
            self._running = self._executor()
        return self._running

    def _base(self, result: Stack) -> Base:
        """The tree below a layer that is being composed, to look at.

        Layers composed by this very solve are asked in memory, so a row of COPYs unpacks nothing.
        """
        known = self._bases.get(result)
        if known is not None:
            return known
        from lamina.builder.changes import EmptyBase

        base: Base
        chain = chain_id(result)
        if chain is None:
            base = EmptyBase()
        elif result in self._made:
            base = self._made[result]
        else:
            base = self._stored_base(result, chain)
        self._bases[result] = base
        return base

    def _stored_base(self, result: Stack, chain: ChainID) -> Base:
        if self._store.snapshots.exists(chain):
            layers = self._store.snapshots.view(chain).lowers
            directories = [layer for layer in layers if isinstance(layer, str)]
            if len(directories) == len(layers):
                return self._layer_directories().base(directories)
        from lamina.builder.changes import MountedBase

        mounted = MountedBase(self._sources.mount(result))
        self._closables.append(mounted)
        return mounted

    def _layer_directories(self) -> LayerDirectories:
        from lamina.builder.layeredbase import LayerDirectories

        with self._guard:
            if self._directories is None:
                self._directories = LayerDirectories()
                self._closables.append(self._directories)
            return self._directories

    def _execute(
        self,
        vertex: Vertex,
        op: Exec,
        base: Stack,
        inputs: tuple[Stack | None, ...],
        cancel: CancelToken,
    ) -> Stack:
        from lamina.builder.execution import Step, Tail, failed
        from lamina.image.unpack import ensure_snapshot
        from lamina.layer.walk import overlay_items

        executor = self.executor()
        self._sources.bring(base, cancel)
        parent = ensure_snapshot(self._store, base, work=replace(self._work, cancel=cancel))
        unique = working_key(f"build:{vertex.digest.short()}")
        tail = Tail()

        def on_output(stream: int, data: bytes) -> None:
            tail.add(data)
            self._work.emit(VertexLog(vertex.digest, stream, data, self._work.clock()))

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
        inputs: tuple[Stack | None, ...],
        cancel: CancelToken,
    ) -> MountProvider:
        from lamina.builder.mountplaces import MountInput

        mounter = self._step_mounter()

        def found(mount: BindMount | CacheMount) -> MountInput:
            assert mount.source is not None
            if isinstance(self._sources.op(vertex, mount), LayerOp | ImageSource | Merge):
                self._sources.bring(inputs[mount.source] or (), cancel)
                return MountInput(inputs[mount.source] or ())
            tree = self._sources.tree(vertex, mount, inputs)
            position = uses(op).index(mount)
            return MountInput(None, tree, self._sources.selection(vertex, position, inputs))

        user = {"build": self._options.build, "step": vertex.meta.name}
        return lambda rootfs: mounter.mounted(op, rootfs, inputs=found, user=user, cancel=cancel)

    def _failed_mounts(
        self, vertex: Vertex, op: Exec, inputs: tuple[Stack | None, ...], chain: ChainID
    ) -> FailedMounts:
        from contextlib import ExitStack, contextmanager

        from lamina.system.mounts import mounted
        from lamina.tasks import CancelToken

        @contextmanager
        def made() -> Iterator[StepMounts]:
            # the step's own token is set: its failure cancelled the other steps
            provider = self._mounts(vertex, op, inputs, CancelToken())
            target = self._scratch.path(working_key("failed"))
            os.mkdir(target, 0o700)
            try:
                with (
                    mounted(self._store.snapshots.view(chain), target),
                    provider(target) as mounts,
                    ExitStack() as stack,
                ):
                    yield self._step_mounter().environment(mounts, stack)
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
                    work=self._work,
                )
                self._closables.append(self._mounter)
            return self._mounter

    def _apply(
        self,
        vertex: Vertex,
        op: FileOp,
        base: Stack,
        inputs: tuple[Stack | None, ...],
        cancel: CancelToken,
    ) -> Stack:
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
            elif isinstance(action, MkdirAction):
                owner = self._owner(action, names) or (0, 0)
                place = changes.resolve(os.fsencode(action.path))
                now_ns = int(self._work.clock()) * 1_000_000_000
                changes.make_directories(place, owner=owner, mtime_ns=now_ns)
            else:
                never(action)
        new = None
        if vertex.digest in self._mounted and self._running is not None:
            new = self._new_layer(base, cancel)
        created = self._write_layer(changes.items(), vertex, is_wanted=True, cancel=cancel, new=new)
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
        inputs: tuple[Stack | None, ...],
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
        tree = self._sources.tree(vertex, action, inputs)
        selection = self._sources.selection(vertex, position, inputs)
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
        self,
        items: Items,
        vertex: Vertex,
        *,
        is_wanted: bool,
        cancel: CancelToken,
        new: NewLayer | None = None,
    ) -> CreatedLayer:
        """The layer of `items`, recorded; its blob in the content store only if it `is_wanted`.

        A layer that no image gets is stored uncompressed: it is read once, to be unpacked. `new`
        makes its snapshot, too.
        """
        from lamina.layer.create import create_layer

        if not is_wanted:
            created = create_layer(items, None, cancel=cancel)
            self._store.metadata.put_layer(created.diff_id, created.size)
            return created
        if new is None:
            return self._write_blob(items, vertex, create_layer, cancel=cancel)
        with new:
            created = self._write_blob(items, vertex, new.create, cancel=cancel)
            new.commit(created.diff_id)
        return created

    def _write_blob(
        self,
        items: Items,
        vertex: Vertex,
        create: Callable[..., CreatedLayer],
        *,
        cancel: CancelToken,
    ) -> CreatedLayer:
        from lamina.spec.descriptor import Descriptor
        from lamina.spec.mediatype import OCI_LAYER_OF

        store, options = self._store, self._options
        is_exported = vertex.meta.exported
        compression = options.compression if is_exported else "uncompressed"
        level = options.level if is_exported else None
        ref = f"build {vertex.digest} {unique_name()}"
        with store.content.ingest(ref) as ingest:
            try:
                created = create(
                    items,
                    ingest.write,
                    compression=compression,
                    level=level,
                    digest=ingest.digest,
                    cancel=cancel,
                )
                digest = ingest.commit(digest=created.digest, size=created.compressed_size)
            except BaseException:
                ingest.abort()
                raise
        blob = Descriptor(OCI_LAYER_OF[compression], digest, created.compressed_size)
        store.metadata.put_layer(created.diff_id, created.size, blob)
        return created

    def _new_layer(self, base: Stack, cancel: CancelToken) -> NewLayer:
        """A layer on the base, whose snapshot is wanted."""
        from lamina.image.newlayer import NewLayer
        from lamina.image.unpack import ensure_snapshot

        self._sources.bring(base, cancel)
        ensure_snapshot(self._store, base, work=replace(self._work, cancel=cancel))
        return NewLayer(self._store, base)


def mounted_copies(plan: Plan) -> frozenset[Digest]:
    """The vertices without a command on whose layer, or on layers above it, a RUN mounts."""
    found: set[Digest] = set()
    for vertex in reversed(plan.vertices):
        inputs = vertex.inputs[:1]
        if isinstance(vertex.op, Exec):
            inputs = vertex.inputs
        elif vertex.digest not in found:
            continue
        found.update(edge.vertex for edge in inputs if edge is not None)
    kinds = {vertex.digest: vertex.op for vertex in plan.vertices}
    return frozenset(digest for digest in found if isinstance(kinds[digest], FileOp))


def _copies(vertex: Vertex) -> tuple[CopyAction, ...]:
    from lamina.solver.keys import copies

    assert isinstance(vertex.op, FileOp)
    return copies(vertex.op)
