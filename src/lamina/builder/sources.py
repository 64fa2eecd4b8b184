# SPDX-License-Identifier: Apache-2.0
"""What the steps of a plan take files from: contexts, stages, checkouts, downloads, inline files.

Each tree is opened once, and each selection made once, for keys, explanations and copies alike.
"""

from __future__ import annotations

import os

from lamina.builder.context import Contexts
from lamina.builder.selection import select, select_path
from lamina.builder.tree import Tree
from lamina.errors import Kind, LaminaError, never
from lamina.plan.ops import (
    CopyAction,
    GitSource,
    GivenSource,
    HttpSource,
    InlineSource,
    LocalSource,
    PinnedSource,
)
from lamina.solver.keys import uses
from lamina.start.lowlevel import allocate_lock

_MANY = 100  # mounts of stages, which stay open; 1,024 files is a common limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from lamina.builder.context import Context
    from lamina.builder.ports import Imported
    from lamina.builder.selection import Selection
    from lamina.plan.graph import Edge, Plan, Vertex
    from lamina.plan.ops import Op
    from lamina.solver.keys import Use
    from lamina.spec.digest import Digest, Stack
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken, Work

    class _Closable(Protocol):
        def close(self) -> None: ...

    class Fetcher(Protocol):
        """What brings remote sources here. Any thread may call it."""

        def download(self, op: HttpSource, *, cancel: CancelToken) -> int:
            """Have the source's content in the content store; its mtime in POSIX seconds."""

        def checkout(self, op: GitSource, *, cancel: CancelToken) -> str:
            """The path of a directory with the source's tree, which nobody changes."""


class Sources:
    """The sources of one solve. Any thread may ask; `close` frees every descriptor."""

    def __init__(
        self,
        plan: Plan,
        *,
        store: Store,
        contexts: Mapping[str, Context],
        git_modes: bool,
        remembers: bool,
        remote: Fetcher | None,
        imported: Imported | None,
        work: Work,
    ) -> None:
        self._store = store
        self._contexts = Contexts(
            contexts, store.metadata, clock=work.clock, git_modes=git_modes, remembers=remembers
        )
        self._remote = remote
        self._imported = imported
        self._work = work
        self._vertices = {vertex.digest: vertex for vertex in plan.vertices}
        self._checkouts: dict[GitSource, Tree] = {}
        self._selections: dict[tuple[Digest, int], Selection] = {}
        self._stage_trees: dict[Stack, Tree] = {}
        self._closables: list[_Closable] = []
        self._mounts = 0
        self._guard = allocate_lock()

    @property
    def site(self) -> str:
        """What names the contexts of this solve among all (`Contexts.site`)."""
        return self._contexts.site()

    def close(self) -> None:
        """Store what was learned of the contexts' files and free every descriptor."""
        try:
            self._contexts.close()
        finally:
            for closable in self._closables:
                closable.close()
            self._closables.clear()

    def selected(self, vertex: Vertex, position: int, inputs: tuple[Stack | None, ...]) -> Digest:
        """The digest of what a use (`solver.keys.uses`) takes from its input; nothing is fetched for it."""
        op = self.op(vertex, uses(vertex.op)[position])
        if isinstance(op, PinnedSource):
            from lamina.solver.keys import given_content

            return given_content(op)
        return self.selection(vertex, position, inputs).digest

    def probed(self, vertex: Vertex, position: int, inputs: tuple[Stack | None, ...]) -> Digest:
        """The digest of the files that a use takes, which are fetched for it if need be."""
        return self.selection(vertex, position, inputs).digest

    def selection(
        self, vertex: Vertex, position: int, inputs: tuple[Stack | None, ...]
    ) -> Selection:
        """What a use takes from its input, found once."""
        known = self._selections.get((vertex.digest, position))
        if known is not None:
            return known
        use = uses(vertex.op)[position]
        op = self.op(vertex, use)
        found = self._given(op)
        if found is None:
            found = self._select(self.tree(vertex, use, inputs), use, op)
        self._selections[vertex.digest, position] = found
        return found

    def _select(self, tree: Tree, use: Use, op: Op | None) -> Selection:
        cache = self._contexts.cache(op) if isinstance(op, LocalSource) else None
        if not isinstance(use, CopyAction):
            return select_path(tree, use.path, cache=cache, cancel=self._work.cancel)
        return select(
            tree,
            use.patterns,
            cache=cache,
            cancel=self._work.cancel,
            exclude=use.exclude,
            parents=use.parents,
        )

    def _given(self, op: Op | None) -> Selection | None:
        """The selection of a source that is one known file, or several."""
        if isinstance(op, InlineSource):
            from lamina.builder.given import select_inline

            return select_inline(op)
        if isinstance(op, HttpSource):
            from lamina.builder.given import select_download

            mtime = self._fetcher().download(op, cancel=self._work.cancel)
            return select_download(op, self._store.content, mtime=mtime)
        return None

    def _fetcher(self) -> Fetcher:
        if self._remote is None:
            text = "this build may not use the network, and needs a URL or a git repository"
            raise LaminaError(text, kind=Kind.UNSUPPORTED)
        return self._remote

    def op(self, vertex: Vertex, use: Use) -> Op | None:
        """The operation that makes the input of a use; None: it is the empty tree."""
        assert use.source is not None
        edge: Edge | None = vertex.inputs[use.source]
        return self._vertices[edge.vertex].op if edge is not None else None

    def tree(self, vertex: Vertex, use: Use, inputs: tuple[Stack | None, ...]) -> Tree:
        """The files that a use chooses from."""
        op = self.op(vertex, use)
        if not isinstance(op, GivenSource):
            assert use.source is not None
            return self._stage_tree(inputs[use.source] or ())
        if isinstance(op, LocalSource):
            return self._contexts.tree(op)
        if isinstance(op, InlineSource | HttpSource):
            return Tree(-1, what="the Dockerfile", ignore=None, keeps_owner=False)
        if isinstance(op, GitSource):
            return self._checkout(op)
        return never(op)

    def _checkout(self, op: GitSource) -> Tree:
        with self._guard:
            known = self._checkouts.get(op)
            if known is None:
                path = self._fetcher().checkout(op, cancel=self._work.cancel)
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                known = Tree(fd, what="the git repository", ignore=None, keeps_owner=False)
                self._closables.append(known)
                self._checkouts[op] = known
        return known

    def _stage_tree(self, result: Stack) -> Tree:
        known = self._stage_trees.get(result)
        if known is None:
            made = Tree(self.mount(result), what="the stage", ignore=None, keeps_owner=True)
            # another thread may have mounted it at the same time: a selection and the copy of it
            # must see one mount, because the device number is part of a file's stamp
            with self._guard:
                known = self._stage_trees.setdefault(result, made)
                self._closables.append(made)
        return known

    def mount(self, result: Stack) -> int:
        """A descriptor of the result's merged tree, mounted nowhere."""
        from lamina.image.unpack import ensure_snapshot
        from lamina.system.mounts import overlay_fd

        self._mounts += 1
        if self._mounts == _MANY:
            from lamina.system.openfiles import raise_limit

            raise_limit()  # what starts the steps was started before, with the limit as it was
        self.bring(result, self._work.cancel)
        chain = ensure_snapshot(self._store, result, work=self._work)
        return overlay_fd(self._store.snapshots.view(chain))

    def _looks_of(self, vertex: Vertex, use: Use) -> Tree:
        """The tree that a selection was made in: how owners and modes count there."""
        op = self.op(vertex, use)
        if isinstance(op, LocalSource):
            return self._contexts.tree(op)
        is_given = isinstance(op, GivenSource)
        return Tree(-1, what="the stage", ignore=None, keeps_owner=not is_given)

    def listing(self, vertex: Vertex) -> list[dict[str, str]]:
        """What each use took from its input, as far as it is known."""
        found = uses(vertex.op)
        if not found:
            return []
        from lamina.builder.listing import listing

        rows: list[dict[str, str]] = []
        for position, use in enumerate(found):
            selection = self._selections.get((vertex.digest, position))
            op = self.op(vertex, use)
            if isinstance(op, InlineSource | HttpSource) or (
                isinstance(op, GitSource) and op.keep_git_dir
            ):
                from lamina.builder.given import given_listing

                rows.append(given_listing(op))
            elif selection is None:
                rows.append({})
            else:
                rows.append(listing(selection, self._looks_of(vertex, use)))
        return rows

    def bring(self, result: Stack, cancel: CancelToken) -> None:
        """Have every layer of the stack in the store that is known elsewhere only."""
        if self._imported is not None:
            self._imported.bring(result, cancel)
