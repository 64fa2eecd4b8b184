# SPDX-License-Identifier: Apache-2.0
"""What is kept of every build: a `Recorder` listens to its events and writes its record.

A record is a document of the store (kind `build`: who, what, when, result) and, beside it,
`builds/<id>.gz`: JSON lines, compressed as they are written, so that a killed build leaves what it
did until then. Lines: `{"plan": [[name, stage], ...]}` once; `{"log": [step, stream, at, text]}`;
`{"start": [step, at]}`; `{"why": [step, cause, subject, old, new, more, via, text]}`; `{"done": [step, outcome, started, at, error]}`; `{"details": {...}}` last (see `details_of`).
Steps are numbered from 1 in the order of the plan. Recording never fails a build: what goes wrong
becomes a Notice. docs/adr/0059 says what is kept how long.
"""

from __future__ import annotations

import os

from lamina.errors import Cancelled, Kind, LaminaError, SourceError, never
from lamina.events import (
    BuildDone,
    Diagnostic,
    Notice,
    Outcome,
    Progress,
    VertexDone,
    VertexExplained,
    VertexLog,
    VertexPlanned,
    VertexStarted,
)
from lamina.plan.ops import Exec, FileOp, LayerOp, MkdirAction
from lamina.spec.identity import chain_id
from lamina.start.jsontext import dumps, loads
from lamina.start.lowlevel import allocate_lock
from lamina.store.ports import Document
from lamina.system.process import this_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from lamina.builder.build import Ended
    from lamina.events import Emitter, Event
    from lamina.plan.graph import Edge, Plan
    from lamina.spec.digest import Digest, Stack
    from lamina.spec.span import Span
    from lamina.store.ports import Store

    Results = Mapping[Digest, Stack]

KIND = "build"
DIRECTORY = "builds"
MAX_RECORDS = 50
MAX_BYTES = 256 << 20  # of all logs together
MAX_PINNED = 5  # failed builds whose failing step's files stay, whatever GC is asked to remove
_REF = "abcdefghijklmnopqrstuvwxyz0123456789"  # of buildx's build references, 25 long
MAX_LINE = 64 << 20  # bytes of one line of a record's file
_MAX_ERROR = 4096


def new_id(random: Callable[[int], bytes] = os.urandom) -> str:
    """A new build id in the form of buildx's."""
    return "".join(_REF[byte % len(_REF)] for byte in random(25))


class Recorder:
    """The record of one build. `begin`, then `note` for every event; `expect` before its solve and
    `ended` after it; then `finish` or `failed`.

    `subject` is what the document says of the build beside its outcome.
    """

    def __init__(
        self,
        store: Store,
        subject: dict[str, Any],
        *,
        clock: Callable[[], float],
        emit: Emitter,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.id = new_id(random)
        self._plan: Plan | None = None
        self._own: frozenset[Digest] | None = None  # its vertices, if others are solved with them
        self._ended: Ended | None = None
        self._imported: Mapping[Digest, str] = {}
        self._store = store
        self._subject = subject
        self._clock = clock
        self._emit = emit
        self._created = clock()
        self._guard = allocate_lock()
        self._file: _LogFile | None = None
        self._works = True
        self._numbers: dict[Digest, int] = {}
        self._names: list[list[str]] = []
        self._started: dict[int, float] = {}
        self._done: dict[int, list[object]] = {}
        self._warnings: list[dict[str, object]] = []

    def expect(self, plan: Plan, *, is_alone: bool) -> None:
        """The solve that begins is of this plan; unless it `is_alone`, of others too."""
        self._plan = plan
        self._own = None if is_alone else frozenset(each.digest for each in plan.vertices)

    def ended(self, ended: Ended, imported: Mapping[Digest, str]) -> None:
        """How far the solve got, and by vertex the cache that a result came from."""
        self._ended = ended
        self._imported = imported

    # Events ---------------------------------------------------------------------------------

    def note(self, event: Event) -> None:
        """Take an event in, from any thread."""
        with self._guard:
            self._note(event)

    def _note(self, event: Event) -> None:
        if isinstance(event, VertexPlanned):
            if self._own is None or event.vertex in self._own:
                self._names.append([event.name, event.stage])
                self._numbers[event.vertex] = len(self._names)
        elif isinstance(event, VertexStarted | VertexExplained | VertexLog | VertexDone):
            number = self._numbers.get(event.vertex)
            if number is not None:
                self._step(number, event)
        elif isinstance(event, Diagnostic):
            self._warnings.append(_warning(event))
        elif not isinstance(event, Progress | Notice | BuildDone):
            never(event)

    def _step(
        self, number: int, event: VertexStarted | VertexExplained | VertexLog | VertexDone
    ) -> None:
        if isinstance(event, VertexStarted):
            self._started[number] = event.at
            self._write({"start": [number, event.at]})
        elif isinstance(event, VertexExplained):
            values = (event.cause, event.subject, event.old, event.new, event.more, event.via)
            self._write({"why": [number, *values, event.text]})
        elif isinstance(event, VertexLog):
            text = event.data.decode("utf-8", "surrogateescape")
            self._write({"log": [number, event.stream, event.at, text]})
        else:
            row: list[object] = [
                event.outcome.value,
                self._started.get(number),
                event.at,
                event.error,
            ]
            self._done[number] = row
            if self._file is not None:
                self._write({"done": [number, *row]})

    def _write(self, line: dict[str, object]) -> None:
        """Append a line (none for `{}`), opening the file first."""
        if not self._works:
            return
        try:
            if self._file is None:
                directory = os.path.join(self._store.root, DIRECTORY)
                os.makedirs(directory, mode=0o700, exist_ok=True)
                self._file = _LogFile(log_path(self._store, self.id))
                self._file.add({"plan": self._names})
                for number, row in self._done.items():
                    self._file.add({"done": [number, *row]})
            if line:
                self._file.add(line)
        except (LaminaError, OSError) as error:
            self._gave_up(error)

    def _gave_up(self, error: Exception) -> None:
        self._works = False
        self._emit(Notice(f"the record of this build is not kept: {error}"))

    # Begin and end --------------------------------------------------------------------------

    def begin(self) -> None:
        """Write that the build runs."""
        try:
            prune(self._store, keep=MAX_RECORDS - 1)
            body = dumps(self._body("running"))
            document = Document(KIND, self.id, self.id, body, self._created)
            self._store.documents.insert(document)
        except (LaminaError, OSError) as error:
            self._gave_up(error)

    def finish(self, outcome: Mapping[str, object], *, warm: bool = False) -> None:
        """Write how the build ended: the document's fields, `warm` if nothing ran."""
        if not self._works:
            return
        try:
            self._finish(dict(outcome))
            if not warm:
                prune_files(self._store)
        except (LaminaError, OSError) as error:
            self._gave_up(error)

    def failed(self, error: BaseException) -> None:
        """Write that the build failed with `error` or was cancelled."""
        if isinstance(error, Cancelled | KeyboardInterrupt):
            self.finish({"status": "canceled", "error": "the build was cancelled"})
            return
        outcome: dict[str, object] = {"status": "error", "error": _message(error)}
        if isinstance(error, SourceError) and error.span is not None:
            outcome["place"] = error.span.location()
        pins = [str(chain) for chain in (self._input_of_failed(), _kept(error)) if chain]
        if pins:
            outcome["pins"] = pins
            unpin_older(self._store, keep=MAX_PINNED - 1)
        if _kept(error):
            outcome["kept"] = _kept(error)
        self.finish(outcome)

    def _finish(self, outcome: dict[str, object]) -> None:
        with self._guard:
            if self._plan is not None:
                details = details_of(self._plan, self._results(), self._numbers)
                numbers = self._numbers
                keys = self._ended.keys if self._ended is not None else {}
                details["keys"] = {numbers[v]: k for v, k in keys.items() if v in numbers}
                imported = {numbers[v]: text for v, text in self._imported.items() if v in numbers}
                if imported:
                    details["imported"] = imported
                self._write({"details": details})
            if self._names and self._file is None:
                self._write({})
            if self._file is not None:
                self._file.close()
        outcomes = [row[0] for row in self._done.values()]
        counts = {value.value: outcomes.count(value.value) for value in Outcome}
        body = self._body(str(outcome.pop("status")))
        body |= {
            "completed": self._clock(),
            "steps": counts | {"total": len(self._names)},
            "warnings": self._warnings,
            **outcome,
        }
        self._store.documents.update(KIND, self.id, dumps(body))

    def _body(self, status: str) -> dict[str, Any]:
        process = this_process()
        holder = {"pid": process.pid, "start_ticks": process.start_ticks}
        return {**self._subject, "status": status, "process": holder, "created": self._created}

    def _results(self) -> dict[Digest, Stack]:
        ends = self._ended.ends if self._ended is not None else {}
        return {digest: stack for digest, (_, stack) in ends.items() if stack is not None}

    def _input_of_failed(self) -> object:
        """The chainID below the step that failed; None if it had no files or is not known."""
        if self._plan is None:
            return None
        for vertex in self._plan.vertices:
            row = self._done.get(self._numbers.get(vertex.digest, 0))
            if row is not None and row[0] == Outcome.FAILED.value and vertex.inputs:
                edge = vertex.inputs[0]
                return chain_id(input_result(self._plan, edge, self._results())) if edge else None
        return None


def input_result(plan: Plan, edge: Edge, results: Results) -> Stack:
    """The stack that an edge stands for, as far as it is known."""
    from lamina.plan.ops import ImageSource

    for vertex in plan.vertices:
        if vertex.digest == edge.vertex:
            op = vertex.op
            return op.diff_ids if isinstance(op, ImageSource) else results.get(vertex.digest, ())
    return ()


class _LogFile:
    """`<id>.gz`, written so that what was flushed can be read whatever happens next."""

    def __init__(self, path: str) -> None:
        import zlib

        self._zlib = zlib
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._compressor = zlib.compressobj(1, zlib.DEFLATED, 31)

    def add(self, line: dict[str, object]) -> None:
        raw = dumps(line).encode() + b"\n"
        if len(raw) > MAX_LINE:
            raise LaminaError(
                f"a line of it would have {len(raw)} bytes, and may have {MAX_LINE}",
                kind=Kind.INVALID,
            )
        data = self._compressor.compress(raw)
        # flushed each time, or the last words before a kill would be missing: 10 us a line
        os.write(self._fd, data + self._compressor.flush(self._zlib.Z_SYNC_FLUSH))

    def close(self) -> None:
        os.write(self._fd, self._compressor.flush())
        os.close(self._fd)


def details_of(plan: Plan, results: Results, numbers: Mapping[Digest, int]) -> dict[str, object]:
    """What `enter` needs: `stacks` of diffIDs; by step, its `results` and `inputs` as (stack,
    length); the `processes` of RUN steps, each naming one of `envs`; the `directories` of WORKDIR.

    A step that was cached without being looked at has the result of the step on it, less a layer.
    """
    known: dict[Digest, Stack] = dict(results)
    for vertex in reversed(plan.vertices):
        result = known.get(vertex.digest)
        edge = vertex.inputs[0] if vertex.inputs else None
        if result and edge is not None and isinstance(vertex.op, LayerOp):
            known.setdefault(edge.vertex, result[:-1])
    stacks: list[Stack] = []
    places: dict[Stack, tuple[int, int]] = {(): (-1, 0)}
    for stack in sorted(set(known.values()), key=len, reverse=True):
        if stack not in places:
            stacks.append(stack)
            places.update((stack[:n], (len(stacks) - 1, n)) for n in range(1, len(stack) + 1))
    envs: dict[object, int] = {}
    processes: dict[int, object] = {}
    directories: dict[int, str] = {}
    found: dict[int, object] = {}
    inputs: dict[int, object] = {}
    for vertex in plan.vertices:
        number = numbers.get(vertex.digest)
        if number is None:
            continue
        if vertex.digest in known:
            found[number] = places.get(known[vertex.digest])
        edge = vertex.inputs[0] if vertex.inputs else None
        if edge is not None:
            inputs[number] = [numbers.get(edge.vertex), places.get(known.get(edge.vertex, ()))]
        op = vertex.op
        if isinstance(op, Exec):
            env = envs.setdefault(op.env, len(envs))
            processes[number] = [op.argv, env, op.cwd, op.user, op.network]
        elif isinstance(op, FileOp) and isinstance(op.actions[-1], MkdirAction):
            directories[number] = op.actions[-1].path
    return {
        "stacks": [[str(diff_id) for diff_id in stack] for stack in stacks],
        "results": found,
        "inputs": inputs,
        "processes": processes,
        "directories": directories,
        "envs": list(envs),
    }


def log_path(store: Store, id: str) -> str:
    """The file of the build's steps and logs."""
    return os.path.join(store.root, DIRECTORY, f"{id}.gz")


def prune(store: Store, *, keep: int = MAX_RECORDS) -> None:
    """Remove the oldest records beyond `keep`, never those of builds that still run."""
    records = store.documents.list(KIND)
    for document in records[: max(0, len(records) - keep)]:
        if not is_running(document):
            remove(store, document.id)


def prune_files(store: Store) -> None:
    """Remove files without a record, and the oldest records while all files are too large."""
    from lamina.system.paths import unlink_if_there

    records = {document.id: document for document in store.documents.list(KIND)}
    sizes: dict[str, int] = {}
    directory = os.path.join(store.root, DIRECTORY)
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        id = name.removesuffix(".gz")
        if id not in records:
            unlink_if_there(os.path.join(directory, name))
        else:
            sizes[id] = os.stat(os.path.join(directory, name)).st_size
    total = sum(sizes.values())
    for id, document in records.items():
        if total <= MAX_BYTES:
            return
        if id in sizes and not is_running(document):
            remove(store, id)
            total -= sizes[id]


def remove(store: Store, id: str) -> None:
    """Remove a record and its file."""
    from lamina.system.paths import unlink_if_there

    store.documents.delete(KIND, id)
    unlink_if_there(log_path(store, id))


def is_running(document: Document) -> bool:
    """Whether the build's process is alive and not done with it."""
    from lamina.system.process import ProcessIdentity

    try:
        body = loads(document.body)
        holder = body["process"]
        identity = ProcessIdentity(int(holder["pid"]), int(holder["start_ticks"]))
        return bool(body["status"] == "running") and identity.alive()
    except (ValueError, KeyError, TypeError):
        return False


def unpin_older(store: Store, *, keep: int) -> None:
    """Drop the pins of all failed builds but the newest `keep`."""
    seen = 0
    for document in reversed(store.documents.list(KIND)):
        body = loads(document.body)
        if not body.get("pins"):
            continue
        seen += 1
        if seen > keep:
            body["pins"] = []
            store.documents.update(KIND, document.id, dumps(body))


def _kept(error: BaseException) -> str:
    """The chainID under which the failed step's files were kept."""
    from lamina.builder.ports import StepFailed

    return str(error.kept or "") if isinstance(error, StepFailed) else ""


def _message(error: BaseException) -> str:
    text = error.what if isinstance(error, LaminaError) else f"{type(error).__name__}: {error}"
    return text[:_MAX_ERROR]


def _warning(event: Diagnostic) -> dict[str, object]:
    span: Span | None = event.span
    place = span.location() if span is not None else ""
    return {"rule": event.rule, "message": event.message, "place": place, "url": event.url}
