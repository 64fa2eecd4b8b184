# SPDX-License-Identifier: Apache-2.0
"""Tells why steps run: compares their keys with the nearest earlier records of the store.

Called only for steps that are about to run, so a fully cached build does none of this.
"""

from __future__ import annotations

from lamina.errors import LaminaError
from lamina.events import VertexExplained
from lamina.plan.ops import ImageSource, Merge
from lamina.redaction import redacted
from lamina.solver import explain as reasons
from lamina.solver.explain import Cause, Explanation, nearest, sentence
from lamina.solver.keytree import KeyTree, annotated, split_name
from lamina.spec.digest import Digest
from lamina.spec.identity import chain_id
from lamina.start.lowlevel import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from lamina.events import Emitter
    from lamina.plan.graph import Plan, Vertex
    from lamina.solver.keys import Key
    from lamina.store.ports import EarlierKey, KeyHistory

_MAX_COMPARED = 12  # records whose trees are read for one step


class Explainer:
    """The explanations of one solve that began at `began`; `site` is where its context lies."""

    def __init__(
        self,
        plan: Plan,
        history: KeyHistory,
        *,
        site: str,
        began: float,
        key_of: Callable[[Digest], Key | None],
        emit: Emitter,
        origin_of: Callable[[str], str],
    ) -> None:
        self._key_of = key_of
        self._origin_of = origin_of
        self._vertices = {vertex.digest: vertex for vertex in plan.vertices}
        self._present = frozenset(split_name(v.meta.name)[2] for v in plan.vertices)
        self._history = history
        self._site = site
        self._began = began
        self._emit = emit
        self._guard = allocate_lock()
        self._trees: dict[str, KeyTree | None] = {}
        self._names: dict[str, tuple[dict[str, list[str]], dict[int, list[str]]]] = {}
        self._matches: dict[Digest, str] = {}  # vertex -> key of its nearest earlier tree
        self._found: dict[Digest, Explanation] = {}

    def annotate(self, vertex: Vertex, tree: str, files: Sequence[Mapping[str, str]]) -> str:
        """The key's tree with what later explanations need beside it."""
        images: dict[str, list[str]] = {}
        for edge in vertex.inputs:
            op = self._vertices[edge.vertex].op if edge is not None else None
            if isinstance(op, ImageSource):
                images[str(chain_id(op.diff_ids))] = [op.reference, str(op.manifest), op.platform]
        return annotated(
            tree,
            site=self._site,
            images=images,
            merges=self._merges(vertex),
            files=files,
            arguments=vertex.meta.arguments,
        )

    def _merges(self, vertex: Vertex) -> dict[str, tuple[str, str]]:
        """Key -> (name, tree) of the merges right below: they have no records of their own."""
        found: dict[str, tuple[str, str]] = {}
        todo = list(vertex.inputs)
        while todo:
            edge = todo.pop()
            below = self._vertices[edge.vertex] if edge is not None else None
            key = self._key_of(below.digest) if below is not None else None
            if below is None or key is None or not isinstance(below.op, Merge):
                continue
            found[str(key.digest)] = below.meta.name, key.tree
            todo += below.inputs
        return found

    def nearest_to(self, vertex: Digest) -> Digest | None:
        """The key of the earlier record that a step's was compared with, None if there was none."""
        key = self._matches.get(vertex)
        return Digest.parse(key) if key else None

    def explain(
        self,
        vertex: Vertex,
        keys: Sequence[Key],
        files: Sequence[Mapping[str, str]],
        *,
        is_forced: str,
        is_gone: bool,
    ) -> None:
        """Find out and tell why `vertex` runs. `is_forced` says what forbade the cache, `is_gone`
        that a record was there but its layers were not. Never fails: then nothing is told.
        """
        with self._guard:
            try:
                found = self._explain(vertex, keys, files, is_forced=is_forced, is_gone=is_gone)
            except LaminaError:
                return  # the store cannot be read: the step itself will say so
            self._found[vertex.digest] = found
        cause = found.cause
        text = sentence(found)
        nearest_key = self._matches.get(vertex.digest, "")
        origin = self._origin_of(nearest_key) if nearest_key else ""
        if origin and cause.kind != reasons.NEW:
            text += f" (compared with the cache {origin})"
        self._emit(
            VertexExplained(
                vertex.digest,
                cause.kind,
                redacted(cause.subject),
                redacted(cause.old),
                redacted(cause.new),
                cause.more,
                found.via,
                redacted(text),
            )
        )

    def _explain(
        self,
        vertex: Vertex,
        keys: Sequence[Key],
        files: Sequence[Mapping[str, str]],
        *,
        is_forced: str,
        is_gone: bool,
    ) -> Explanation:
        if is_forced:
            return Explanation(Cause(reasons.NO_CACHE, is_forced))
        if is_gone:
            return Explanation(Cause(reasons.PRUNED, "its layers are gone"))
        name = vertex.meta.name
        key = str(keys[0].digest)
        new = KeyTree(key, name, self.annotate(vertex, keys[0].tree, files))
        if self._history.trees([key], before=self._began):
            return self._of_inputs(vertex)
        if self._history.was_pruned(key):
            return Explanation(Cause(reasons.PRUNED, "to free space"))
        self._trees[key] = new
        old = self._nearest(vertex, new)
        if old is None:
            return Explanation(Cause(reasons.NEW))
        self._matches[vertex.digest] = old.key
        found = reasons.explain(new, old, self._tree)
        if old.about.get("site", "") != self._site and not _is_likely(found, new):
            return Explanation(Cause(reasons.NEW))
        return self._as_moved(found, new)

    def _as_moved(self, found: Explanation, new: KeyTree) -> Explanation:
        """An instruction that was added before this step was moved if it was there before; one that
        was removed if it is still there.
        """
        gone = found.cause.subject
        if found.cause.kind == reasons.INSTRUCTION_REMOVED and gone in self._present:
            text = new.instruction
            return Explanation(Cause(reasons.INSTRUCTION_MOVED, text, gone, text))
        if found.cause.kind != reasons.INSTRUCTION_ADDED or not found.via:
            return found
        for digest, key in self._matches.items():
            old = self._trees.get(key)
            if self._vertices[digest].meta.name == found.via and old is not None:
                text = found.cause.subject
                if old.instruction == text:
                    cause = Cause(reasons.INSTRUCTION_MOVED, text, new.instruction, text)
                    return Explanation(cause, found.via)
        return found

    def _of_inputs(self, vertex: Vertex) -> Explanation:
        """Why a step runs whose definition is known: an input ran again and came out different."""
        for edge in vertex.inputs:
            below = self._vertices[edge.vertex] if edge is not None else None
            known = self._found.get(below.digest) if below is not None else None
            if below is not None and known is not None:
                return Explanation(known.cause, known.via or below.meta.name)
        return Explanation(Cause(reasons.INPUT, vertex.meta.name))

    def _nearest(self, vertex: Vertex, new: KeyTree) -> KeyTree | None:
        edge = vertex.inputs[0] if vertex.inputs else None
        follows = self._matches.get(edge.vertex, "") if edge is not None else ""
        stage, number, text = split_name(new.name)
        texts, numbers = self._stage(stage)
        alike = texts.get(text, [])
        if not alike:  # the stage may have had another name
            alike = self._history.instructions(text, before=self._began)
        # a variable may have changed the name's text: then the step in this place is meant
        keys = (alike or numbers.get(number, []))[:_MAX_COMPARED]
        return nearest(
            new, self._read(keys), site=self._site, follows=follows, present=self._present
        )

    def _stage(self, stage: str) -> tuple[dict[str, list[str]], dict[int, list[str]]]:
        """Keys of a stage's earlier steps by instruction and by number, the newest first."""
        known = self._names.get(stage)
        if known is None:
            known = self._names[stage] = {}, {}
            for name, key in self._history.names(stage, before=self._began):
                _, number, text = split_name(name)
                known[0].setdefault(text, []).append(key)
                known[1].setdefault(number, []).append(key)
        return known

    def _read(self, keys: Iterable[str]) -> list[KeyTree]:
        missing = [key for key in keys if key not in self._trees]
        for row in self._history.trees(missing, before=self._began):
            self._trees[row.key] = tree_of(row)
        return [tree for key in keys if (tree := self._trees.get(key)) is not None]

    def _tree(self, key: str) -> KeyTree | None:
        """The tree of any key, also of this solve."""
        if key not in self._trees:
            rows = self._history.trees([key])
            self._trees[key] = tree_of(rows[0]) if rows else None
        return self._trees[key]


def tree_of(row: EarlierKey) -> KeyTree:
    """The record's tree."""
    return KeyTree(row.key, row.name, row.tree, created=row.created)


def _is_likely(found: Explanation, new: KeyTree) -> bool:
    """Whether a comparison with a build of another directory says something: half of the files are
    the same, or what differs is a variable.
    """
    cause = found.cause
    if cause.kind in {reasons.ARG, reasons.ENV, reasons.FILE_RENAMED}:
        return True
    if not cause.kind.startswith("file"):
        return False
    listed = sum(map(len, new.files()))
    return bool(found.via) or 2 * (cause.more + 1) <= max(listed, 2)
