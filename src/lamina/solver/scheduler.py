# SPDX-License-Identifier: Apache-2.0
"""Which vertex to look up, hash or run next. Pure: it proposes actions and is fed outcomes.

It works backwards from the requested edges, so a target that is cached never has its inputs
loaded. Each vertex goes through these phases (a source has only the first and the last; a merge is
looked up nowhere and ends when its inputs have results):

| phase | waits for | leaves by |
|---|---|---|
| NEW | definitions of the inputs; `Select` of what it uses of a build context | primary key |
| DEFINED | somebody wants its result | `Lookup` of the primary key |
| LOOKUP | the store's answer | hit: FINAL, else INPUTS |
| INPUTS | results of all inputs | `Lookup` of the chain key |
| CHAIN | the store's answer | hit: FINAL, else PROBE, or RUN if nothing can be probed |
| PROBE | `Select` of what it uses of stages and checkouts | `Lookup` of the content key |
| CONTENT | the store's answer | hit: FINAL, else RUN |
| RUN | `Run`, or that of another vertex with the same key | FINAL |
| FINAL | | |

A vertex that nobody wanted because all its users were cached ends as cached, when the last of
them ends. After a failure nothing more is proposed. The result does not depend on the order in
which outcomes are fed.
"""

from __future__ import annotations

from lamina.errors import never
from lamina.events import Outcome
from lamina.plan.ops import Exec, FileOp, GitSource, GivenSource, ImageSource, LayerOp, Merge
from lamina.solver.keys import (
    by_chain,
    by_content,
    by_definition,
    merge_key,
    op_key,
    uses,
)
from lamina.start.enumeration import Enumeration
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamina.plan.graph import Edge, Plan, Vertex
    from lamina.solver.keys import Identity, Key, Use
    from lamina.spec.digest import Digest, Stack


class Select(Record):
    """Digest what this vertex takes from its inputs (`keys.uses`); feed `Selected`.

    `wanted` are the positions (among the vertex's uses) to digest: those from a build
    context before anything runs, those from other stages when these have `inputs`. Of a commit
    its name is digested first; if that is not enough (`is_probe`) it is fetched, for its files.
    """

    vertex: Vertex
    wanted: tuple[int, ...]
    inputs: tuple[Stack | None, ...]
    is_probe: bool = False


class Lookup(Record):
    """Look the keys up; feed `Found` or `Missed`. The first is the primary key."""

    vertex: Vertex
    keys: tuple[Key, ...]


class Run(Record):
    """Make the vertex's layer, record it under `keys`; feed `Ran`. None: input is a context."""

    vertex: Vertex
    keys: tuple[Key, ...]
    inputs: tuple[Stack | None, ...]


Action = Select | Lookup | Run


class Selected(Record):
    """Digests of selections, by position of the use."""

    vertex: Digest
    digests: tuple[tuple[int, Digest], ...]


class Found(Record):
    """A cached result."""

    vertex: Digest
    result: Stack


class Missed(Record):
    """No key has a (usable) record."""

    vertex: Digest


class Ran(Record):
    """The vertex ran; its whole stack of layers."""

    vertex: Digest
    result: Stack


class Failed(Record):
    """The vertex's action failed; nothing more will be proposed."""

    vertex: Digest


Fed = Selected | Found | Missed | Ran | Failed


class _Phase(Enumeration):
    NEW = "new"
    DEFINED = "defined"
    LOOKUP = "lookup"
    INPUTS = "inputs"
    CHAIN = "chain"
    PROBE = "probe"
    CONTENT = "content"
    RUN = "run"
    FINAL = "final"


class _Node:
    """What is known of one vertex."""

    __slots__ = (
        "contents",
        "is_runner",
        "is_wanted",
        "keys",
        "local",
        "open_users",
        "outcome",
        "phase",
        "position",
        "probed",
        "result",
        "selections",
        "tried",
        "users",
        "vertex",
    )

    def __init__(self, vertex: Vertex, position: int) -> None:
        self.vertex = vertex
        self.position = position
        self.phase = _Phase.NEW
        self.is_wanted = False
        self.is_runner = False
        self.users: list[_Node] = []
        self.open_users = 0  # how many of `users` have not ended
        self.keys: list[Key] = []
        self.tried = 0  # how many of `keys` were looked up
        self.selections: dict[int, Digest] = {}  # of `local`
        self.contents: dict[int, Digest] = {}  # of `probed`
        self.local: tuple[int, ...] = ()  # positions of uses of given sources
        self.probed: tuple[int, ...] = ()  # positions of uses of stages, and of commits
        self.result: Stack | None = None
        self.outcome: Outcome | None = None


class Scheduler:
    """Solves a plan; see the module's table. Not thread-safe: one thread drives it.

    With `no_cache` nothing is looked up. A vertex whose meta says so (`ignore_cache`) always runs.
    Those that stand on it are in `unsure`: their first key, made from definitions, proves nothing.
    Results are recorded under it, but not believed for it.
    """

    def __init__(self, plan: Plan, *, no_cache: bool = False) -> None:
        self._uncached: set[Digest] = set()  # these always run
        self.unsure: set[Digest] = set()
        for vertex in plan.vertices:
            if no_cache or vertex.meta.ignore_cache:
                self._uncached.add(vertex.digest)
            elif any(
                edge is not None and (edge.vertex in self._uncached or edge.vertex in self.unsure)
                for edge in vertex.inputs
            ):
                self.unsure.add(vertex.digest)
        self._nodes: dict[Digest, _Node] = {}
        self._requested: list[_Node] = []
        self._actions: list[Action] = []
        self._ended: list[_Node] = []
        self._runs: dict[Digest, list[_Node]] = {}  # key of a run -> who else waits for it
        self._newly_wanted: list[_Node] = []
        self._newly_finished: list[_Node] = []
        self._has_stopped = False
        for position, vertex in enumerate(plan.vertices):
            self._nodes[vertex.digest] = _Node(vertex, position)
        for node in self._nodes.values():
            for edge in node.vertex.inputs:
                if edge is not None:
                    below = self._nodes[edge.vertex]
                    below.users.append(node)
                    below.open_users += 1
            self._sort_uses(node, uses(node.vertex.op))
        for node in self._nodes.values():
            if node.local:
                self._actions.append(Select(node.vertex, node.local, self._results(node)))
            self._define(node)

    def _sort_uses(self, node: _Node, found: Iterable[Use]) -> None:
        local: list[int] = []
        probed: list[int] = []
        for position, use in enumerate(found):
            assert use.source is not None
            edge = node.vertex.inputs[use.source]
            op = self._nodes[edge.vertex].vertex.op if edge is not None else None
            is_local = isinstance(op, GivenSource)
            if is_local:
                local.append(position)
            if not is_local or (isinstance(op, GitSource) and not op.keep_git_dir):
                probed.append(position)
        node.local, node.probed = tuple(local), tuple(probed)

    # What the driver calls ------------------------------------------------------------------

    def request(self, edge: Edge | None) -> None:
        """Ask for the result of an edge (None, the empty tree, needs nothing)."""
        if edge is not None:
            node = self._nodes[edge.vertex]
            self._requested.append(node)
            self._want(node)
            self._settle()

    def pending(self) -> tuple[Action, ...]:
        """Actions to carry out now, each given once; their order is that of the plan."""
        if self._has_stopped:
            return ()
        actions, self._actions = self._actions, []
        return tuple(sorted(actions, key=lambda a: self._nodes[a.vertex.digest].position))

    def feed(self, fed: Fed) -> None:
        """Take an outcome in. After `stop` only the vertex's end counts."""
        node = self._nodes[fed.vertex]
        if node.phase is _Phase.FINAL:
            return
        if isinstance(fed, Failed):
            self._end(node, Outcome.FAILED)
            self._has_stopped = True
        elif isinstance(fed, Ran):
            self._finish(node, fed.result, Outcome.RAN)
        elif isinstance(fed, Found):
            self._finish(node, fed.result, Outcome.CACHED)
        elif isinstance(fed, Missed):
            self._missed(node)
        elif isinstance(fed, Selected):
            self._selected(node, fed)
        else:
            never(fed)
        self._settle()

    def stop(self) -> None:
        """Nothing more is proposed; every vertex without a final state ends as cancelled."""
        self._has_stopped = True
        for node in self._nodes.values():
            if node.phase is not _Phase.FINAL:
                self._end(node, Outcome.CANCELLED)

    def ended(self) -> tuple[tuple[Vertex, Outcome], ...]:
        """Vertices that reached their final state since the last call, inputs before users."""
        nodes, self._ended = sorted(self._ended, key=lambda node: node.position), []
        return tuple([(n.vertex, n.outcome) for n in nodes if n.outcome is not None])

    def may_execute(self) -> bool:
        """Whether an Exec that somebody wants has no result yet."""
        return not self._has_stopped and any(
            node.is_wanted and node.phase is not _Phase.FINAL and isinstance(node.vertex.op, Exec)
            for node in self._nodes.values()
        )

    @property
    def is_done(self) -> bool:
        """Whether every requested edge has a result, or nothing more will be proposed."""
        return self._has_stopped or all(node.result is not None for node in self._requested)

    def result(self, edge: Edge | None) -> Stack:
        """The stack of layers of a requested edge that is done."""
        if edge is None:
            return ()
        result = self._nodes[edge.vertex].result
        if result is None:
            raise KeyError(edge.vertex)
        return result

    def results(self) -> dict[Digest, tuple[Outcome, Stack | None]]:
        """How every vertex that ended did, and its stack of layers if that is known."""
        return {
            node.vertex.digest: (node.outcome, node.result)
            for node in self._nodes.values()
            if node.outcome is not None
        }

    def key_of(self, vertex: Digest) -> Key | None:
        """The primary key of a vertex, if it has one yet. Any thread may ask."""
        node = self._nodes.get(vertex)
        return node.keys[0] if node is not None and node.keys else None

    def keys(self) -> dict[Digest, str]:
        """The primary key of every vertex that has one, as text."""
        return {
            node.vertex.digest: str(node.keys[0].digest)
            for node in self._nodes.values()
            if node.keys
        }

    # Phases ---------------------------------------------------------------------------------

    def _define(self, node: _Node) -> bool:
        """NEW -> DEFINED if all that the primary key is made of is known; whether it was now."""
        if node.phase is not _Phase.NEW:
            return False
        op = node.vertex.op
        if isinstance(op, GivenSource | ImageSource):
            node.phase = _Phase.DEFINED
        elif isinstance(op, LayerOp | Merge):
            inputs = [self._input(edge) for edge in node.vertex.inputs]
            if any(i is not None and i.phase is _Phase.NEW for i in inputs):
                return False
            if any(position not in node.selections for position in node.local):
                return False
            node.keys.append(self._key(node, chains=False, contents=False))
            node.phase = _Phase.DEFINED
        else:
            never(op)
        if node.is_wanted:
            self._look_up_definition(node)
        return True

    def _want(self, node: _Node) -> None:
        if not node.is_wanted:
            node.is_wanted = True
            self._newly_wanted.append(node)

    def _settle(self) -> None:
        """Look up what became wanted, tell users what finished.

        Queues, not recursion: a plan may be a very long chain.
        """
        while self._newly_wanted or self._newly_finished:
            while self._newly_finished:
                node = self._newly_finished.pop()
                for user in node.users:
                    self._use_inputs(user)
                self._close_unneeded(node)
            while self._newly_wanted:
                node = self._newly_wanted.pop(0)
                if node.phase is _Phase.DEFINED:
                    self._look_up_definition(node)

    def _look_up_definition(self, node: _Node) -> None:
        """What a vertex that somebody wants does first; a source has its result at once."""
        op = node.vertex.op
        if isinstance(op, ImageSource):
            self._finish(node, op.diff_ids, Outcome.CACHED)
        elif isinstance(op, GivenSource):
            self._finish(node, (), Outcome.CACHED)
        elif isinstance(op, Merge):
            self._want_inputs(node)
        elif isinstance(op, LayerOp):
            self._look_up_first(node)
        else:
            never(op)

    def _look_up_first(self, node: _Node) -> None:
        """DEFINED -> LOOKUP, or INPUTS if the primary key is not to be asked for."""
        if node.vertex.digest in self._uncached:
            self._want_inputs(node)
        elif node.vertex.digest in self.unsure:
            node.tried = len(node.keys)
            self._want_inputs(node)
        else:
            node.phase = _Phase.LOOKUP
            if self._has_inputs(node):
                self._add_key(node, self._key(node, chains=True, contents=False))
            self._look_up(node)

    def _look_up(self, node: _Node) -> None:
        untried = node.keys[node.tried :]
        node.tried = len(node.keys)
        if node.vertex.digest in self._uncached or not untried:
            self._missed(node)
        else:
            primary = () if untried[0] is node.keys[0] else (node.keys[0],)
            self._actions.append(Lookup(node.vertex, (*primary, *untried)))

    def _missed(self, node: _Node) -> None:
        if node.phase is _Phase.LOOKUP:
            self._want_inputs(node)
        elif node.phase is _Phase.CHAIN:
            if node.probed:
                node.phase = _Phase.PROBE
                inputs = self._results(node)
                self._actions.append(Select(node.vertex, node.probed, inputs, is_probe=True))
            else:
                self._run(node)
        elif node.phase is _Phase.CONTENT:
            self._run(node)

    def _want_inputs(self, node: _Node) -> None:
        node.phase = _Phase.INPUTS
        for edge in node.vertex.inputs:
            found = self._input(edge)
            if found is not None and not isinstance(found.vertex.op, GivenSource):
                self._want(found)
        self._use_inputs(node)

    def _use_inputs(self, node: _Node) -> None:
        """INPUTS -> CHAIN once every input has a result."""
        if node.phase is _Phase.INPUTS and self._has_inputs(node):
            if isinstance(node.vertex.op, Merge):
                self._finish(node, self._merged(node), self._merged_outcome(node))
                return
            node.phase = _Phase.CHAIN
            self._add_key(node, self._key(node, chains=True, contents=False))
            self._look_up(node)

    def _merged(self, node: _Node) -> Stack:
        return tuple([diff_id for known in self._known(node) for diff_id in known or ()])

    def _merged_outcome(self, node: _Node) -> Outcome:
        inputs = [self._input(edge) for edge in node.vertex.inputs]
        has_run = any(i is not None and i.outcome is Outcome.RAN for i in inputs)
        return Outcome.RAN if has_run else Outcome.CACHED

    def _selected(self, node: _Node, fed: Selected) -> None:
        if node.phase is _Phase.NEW:
            node.selections.update(fed.digests)
            todo = [node]
            while todo:
                followed = todo.pop()
                if self._define(followed):
                    todo += followed.users
        elif node.phase is _Phase.PROBE:
            node.contents.update(fed.digests)
            node.phase = _Phase.CONTENT
            self._add_key(node, self._key(node, chains=True, contents=True))
            self._look_up(node)

    def _run(self, node: _Node) -> None:
        node.phase = _Phase.RUN
        waiting = self._runs.get(node.keys[-1].digest)
        if waiting is not None:
            waiting.append(node)  # the same work is being done for another vertex
            return
        self._runs[node.keys[-1].digest] = []
        node.is_runner = True
        self._actions.append(Run(node.vertex, tuple(node.keys), self._results(node)))

    def _finish(self, node: _Node, result: Stack, outcome: Outcome) -> None:
        node.result = result
        self._end(node, outcome)
        if node.is_runner:
            for waiting in self._runs.pop(node.keys[-1].digest, ()):
                self._finish(waiting, result, Outcome.CACHED)
        self._newly_finished.append(node)

    def _close_unneeded(self, node: _Node) -> None:
        """End what nobody wanted and has no user any more that could, as `node` has ended."""
        todo = [] if self._has_stopped else [node]
        while todo:
            for edge in todo.pop().vertex.inputs:
                below = self._input(edge)
                if below is None:
                    continue
                below.open_users -= 1
                if not below.open_users and not below.is_wanted and below.phase is not _Phase.FINAL:
                    self._end(below, Outcome.CACHED)
                    todo.append(below)

    def _end(self, node: _Node, outcome: Outcome) -> None:
        node.phase = _Phase.FINAL
        node.outcome = outcome
        self._ended.append(node)

    # Keys -----------------------------------------------------------------------------------

    def _add_key(self, node: _Node, key: Key) -> None:
        if all(known.digest != key.digest for known in node.keys):
            node.keys.append(key)

    def _key(self, node: _Node, *, chains: bool, contents: bool) -> Key:
        op, inputs = node.vertex.op, node.vertex.inputs
        base = self._identity(inputs[0] if inputs else None, chains=chains)
        if isinstance(op, Merge):
            return merge_key([self._identity(edge, chains=chains) for edge in inputs])
        if isinstance(op, FileOp) and op.owners is not None:
            base = self._identity(inputs[op.owners], chains=chains)
        sources = []
        for position, use in enumerate(uses(op)):
            if contents and position in node.contents:
                sources.append(by_content(node.contents[position]))
            elif position in node.local:
                sources.append(by_content(node.selections[position]))
            else:
                assert use.source is not None
                sources.append(self._identity(inputs[use.source], chains=chains))
        assert isinstance(op, LayerOp), op
        return op_key(op, base, sources)

    def _identity(self, edge: Edge | None, *, chains: bool) -> Identity:
        node = self._input(edge)
        if node is None:
            return by_chain(())
        op = node.vertex.op
        if isinstance(op, ImageSource):
            return by_chain(op.diff_ids)
        if chains:
            assert node.result is not None
            return by_chain(node.result)
        return by_definition(node.keys[0].digest)

    def _input(self, edge: Edge | None) -> _Node | None:
        return self._nodes[edge.vertex] if edge is not None else None

    def _has_inputs(self, node: _Node) -> bool:
        return all(result is not None for result in self._known(node))

    def _known(self, node: _Node) -> list[Stack | None]:
        """Results of the inputs that have one; a context counts as known and empty."""
        known: list[Stack | None] = []
        for edge in node.vertex.inputs:
            found = self._input(edge)
            if found is None or isinstance(found.vertex.op, GivenSource):
                known.append(())
            elif isinstance(found.vertex.op, ImageSource):
                known.append(found.vertex.op.diff_ids)
            else:
                known.append(found.result)
        return known

    def _results(self, node: _Node) -> tuple[Stack | None, ...]:
        """The inputs' results as an action sees them: None for a build context."""
        return tuple(
            None
            if edge is not None and isinstance(self._nodes[edge.vertex].vertex.op, GivenSource)
            else result
            for edge, result in zip(node.vertex.inputs, self._known(node), strict=True)
        )
