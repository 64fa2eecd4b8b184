# SPDX-License-Identifier: Apache-2.0
"""A recorded build told again, as the events that it was."""

from __future__ import annotations

from lamina.app.builds import Step
from lamina.cli.ui.jsonl import JsonView
from lamina.cli.ui.plain import PlainView
from lamina.events import (
    Outcome,
    VertexDone,
    VertexExplained,
    VertexLog,
    VertexPlanned,
    VertexStarted,
)
from lamina.spec.digest import Digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.app.builds import Build
    from lamina.cli.context import Context
    from lamina.events import Event


def replay(build: Build, context: Context, *, is_json: bool) -> None:
    """Print the build's steps and logs on standard output, as `--progress=plain` or `rawjson`."""
    view = JsonView(context.stdout) if is_json else PlainView(context.stdout)
    for event in events_of(build):
        view(event)
    view.close()


def events_of(build: Build) -> Iterator[Event]:
    """The events of the build's steps. A step's end comes before the first word of what began
    after it; the digests of vertices are made up.
    """
    steps = build.steps()
    for step in steps:
        yield VertexPlanned(
            _vertex(step.number), step.name, step.stage, step.number, len(steps), build.created
        )
    ends = sorted(
        (step for step in steps if step.completed is not None and step.outcome),
        key=lambda step: step.completed or 0.0,
    )
    started: set[int] = set()
    for number, stream, at, data in build.logs():
        while ends and (ends[0].completed or 0.0) <= at and ends[0].number != number:
            yield from _end(ends.pop(0), started)
        if number not in started:
            started.add(number)
            yield VertexStarted(_vertex(number), steps[number - 1].started or at)
        yield VertexLog(_vertex(number), stream, data, at)
    for step in ends:
        yield from _end(step, started)


def _end(step: object, started: set[int]) -> Iterator[Event]:
    assert isinstance(step, Step)
    if step.number not in started and step.started is not None:
        yield VertexStarted(_vertex(step.number), step.started)
    if step.why is not None:
        why = step.why
        values = (why.cause, why.subject, why.old, why.new, why.more, why.via, why.text)
        yield VertexExplained(_vertex(step.number), *values)
    outcome = Outcome(step.outcome)
    yield VertexDone(_vertex(step.number), outcome, step.completed or 0.0, step.error)


def _vertex(number: int) -> Digest:
    return Digest.of(str(number).encode())
