# SPDX-License-Identifier: Apache-2.0
"""The one stream of typed events that terminal, `--progress=plain|json` and tests read.

Whoever does work gets an `Emitter` as an argument and calls it; emitters may be called from any
thread and serialise the events themselves, so every reader sees one order. `at` is POSIX seconds.
docs/events.md gives the JSON form of each.
"""

from __future__ import annotations

from lamina.start.enumeration import Enumeration
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.spec.digest import Digest
    from lamina.spec.span import Span


class Outcome(Enumeration):
    """How a vertex ended."""

    RAN = "ran"
    CACHED = "cached"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Severity(Enumeration):
    """How grave a diagnostic is."""

    WARNING = "warning"
    ERROR = "error"


class VertexPlanned(Record):
    """A vertex of the plan, announced before it starts: `number` of `total` in this build.

    `name` is what BuildKit prints: `[builder 2/4] RUN make`; `stage` is the stage's name.
    """

    vertex: Digest
    name: str
    stage: str
    number: int
    total: int
    at: float


class VertexStarted(Record):
    """The vertex is being looked up, hashed, loaded or run."""

    vertex: Digest
    at: float


class VertexExplained(Record):
    """Why the vertex was not cached, before it runs: one `cause` (a kind of `solver.explain`).

    `subject` is what differs from the nearest earlier record (a path, a variable...), `old` and
    `new` its values, `more` the number of further differences, `via` the name of the step where
    the cause lies (empty: this one). `text` says it in one line.
    """

    vertex: Digest
    cause: str
    subject: str
    old: str
    new: str
    more: int
    via: str
    text: str


class VertexDone(Record):
    """The vertex has ended; `error` is one line, empty unless it failed."""

    vertex: Digest
    outcome: Outcome
    at: float
    error: str = ""


class VertexLog(Record):
    """Bytes a step wrote to `stream` 1 (stdout) or 2 (stderr), as written, any length."""

    vertex: Digest
    stream: int
    data: bytes
    at: float


class Phase(Enumeration):
    """What happens to a blob. WAITING and PRESENT have no bytes: it will move, or need not."""

    WAITING = "waiting"
    PULLING = "pulling"
    PUSHING = "pushing"
    COPYING = "copying"
    UNPACKING = "unpacking"
    PRESENT = "present"


class Progress(Record):
    """A transfer or export: `current` of `total` bytes (None if unknown); `done` on the last.

    `subject` is the blob that `phase` is about; None for what an exporter writes. One blob has
    events of several phases, UNPACKING beside PULLING.
    """

    id: str
    name: str
    current: int
    total: int | None
    at: float
    done: bool = False
    vertex: Digest | None = None
    subject: Digest | None = None
    phase: Phase | None = None


class Diagnostic(Record):
    """A finding about the user's input: a build check (`rule` is its name) or a warning."""

    severity: Severity
    rule: str
    message: str
    span: Span | None = None
    url: str = ""


class Notice(Record):
    """One line a person should know that belongs to no vertex (`removed`, `using runc`...)."""

    message: str


class BuildDone(Record):
    """The build is complete: the image's manifest and config digest (None for a plain export)."""

    manifest: Digest | None
    config: Digest | None
    names: tuple[str, ...]
    at: float


Event = (
    VertexPlanned
    | VertexStarted
    | VertexExplained
    | VertexDone
    | VertexLog
    | Progress
    | Diagnostic
    | Notice
    | BuildDone
)

if TYPE_CHECKING:
    Emitter = Callable[[Event], None]


def silent(event: Event) -> None:
    """An emitter for callers who do not want to know."""
