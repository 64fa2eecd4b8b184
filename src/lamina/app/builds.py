# SPDX-License-Identifier: Apache-2.0
"""Use cases of the build history: list, find, read, remove, enter (records: `app.history`)."""

from __future__ import annotations

import json
import os
import zlib

from lamina.app import containers
from lamina.app.history import KIND, MAX_LINE, is_running, log_path, remove
from lamina.app.run_options import Origin, RunOptions
from lamina.app.run_options import configure as configure_container
from lamina.container import lifecycle
from lamina.container.names import new_id, new_name
from lamina.errors import Kind, LaminaError
from lamina.image.notebook import table
from lamina.image.unpack import ensure_snapshot
from lamina.spec.config import RunConfig
from lamina.spec.digest import ChainID, DiffID, Digest
from lamina.spec.identity import chain_id
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from lamina.app.containers import Container, Host
    from lamina.container.ports import Mount
    from lamina.spec.digest import Stack
    from lamina.store.ports import Document, Store
    from lamina.tasks import Work


class Why(Record):
    """Why a step was not cached: the fields of `events.VertexExplained`."""

    cause: str
    subject: str
    old: str
    new: str
    more: int
    via: str
    text: str


class Step(Record):
    """A step of a recorded build, numbered from 1 in the order of the plan.

    `outcome` is ran, cached, failed, cancelled, or empty if the build was killed before it ended.
    Times are POSIX seconds, None if it never started. `why` says why it was not cached, if it ran.
    """

    number: int
    name: str
    stage: str
    outcome: str = ""
    started: float | None = None
    completed: float | None = None
    error: str = ""
    why: Why | None = None


class Build:
    """One recorded build. `body` is its document; the file beside it is read when it is asked."""

    def __init__(self, store: Store, document: Document) -> None:
        self._store = store
        self.id = document.id
        self.created = document.created
        self.body: dict[str, Any] = json.loads(document.body)
        self.status = _status(document, self.body)

    def __repr__(self) -> str:
        return f"<Build {self.id[:12]} {self.name} {self.status}>"

    def _repr_html_(self) -> str:
        """The build's steps in a notebook."""
        return table(
            ("Step", "Name", "Outcome", "Seconds", "Why, or the error"),
            [
                (step.number, step.name, step.outcome, _seconds(step), step.error or _why(step))
                for step in self.steps()
            ],
        )

    @property
    def name(self) -> str:
        """What listings call it."""
        return str(self.body.get("name", ""))

    @property
    def completed(self) -> float | None:
        """When it ended; None while it runs, or if it was killed."""
        value = self.body.get("completed")
        return float(value) if isinstance(value, int | float) else None

    def steps(self) -> list[Step]:
        """Its steps, as far as they are known."""
        return self._read()[0]

    def details(self) -> dict[str, Any]:
        """What `history.details_of` wrote; empty if the build was killed."""
        return self._read()[1]

    def _read(self) -> tuple[list[Step], dict[str, Any]]:
        steps: list[Step] = []
        details: dict[str, Any] = {}
        for line in read_lines(log_path(self._store, self.id)):
            if "plan" in line:
                names = enumerate(line["plan"], start=1)
                steps = [Step(number, name, stage) for number, (name, stage) in names]
            elif "start" in line:
                number, at = line["start"]
                steps[number - 1] = replace(steps[number - 1], started=at)
            elif "why" in line:
                number, *values = line["why"]
                steps[number - 1] = replace(steps[number - 1], why=Why(*values))
            elif "done" in line:
                number, outcome, started, at, error = line["done"]
                steps[number - 1] = replace(
                    steps[number - 1],
                    outcome=outcome,
                    started=started,
                    completed=at,
                    error=error,
                )
            elif "details" in line:
                details = line["details"]
        return steps, details

    def logs(self) -> Iterator[tuple[int, int, float, bytes]]:
        """(step, stream, time, bytes) of everything its steps wrote, in order."""
        for line in read_lines(log_path(self._store, self.id)):
            if "log" in line:
                number, stream, at, text = line["log"]
                yield number, stream, at, text.encode("utf-8", "surrogateescape")


def _seconds(step: Step) -> str:
    if step.started is None or step.completed is None:
        return ""
    return f"{step.completed - step.started:.1f}"


def _why(step: Step) -> str:
    return step.why.text if step.why is not None else ""


def list_builds(store: Store) -> list[Build]:
    """Every recorded build, newest first."""
    return [Build(store, document) for document in reversed(store.documents.list(KIND))]


def find_build(store: Store, text: str) -> Build:
    """The build of this id, reference (`builder/node/id`) or beginning of an id; empty or `^0` is
    the newest, `^N` the one N before it.

    Raises LaminaError of kind NOT_FOUND, or INVALID if several ids begin so.
    """
    text = text.rpartition("/")[2]
    if not text or (text.startswith("^") and text[1:].isdigit()):
        builds = list_builds(store)
        offset = int(text[1:] or 0) if text else 0
        if offset >= len(builds):
            raise LaminaError("no such build: none is recorded that long ago", kind=Kind.NOT_FOUND)
        return builds[offset]
    found = store.documents.find(KIND, text)
    if not found:
        raise LaminaError(
            f"no such build: {text}", kind=Kind.NOT_FOUND, hint="'lamina builds' lists them"
        )
    if len(found) > 1:
        raise LaminaError(f"several builds begin with {text}", kind=Kind.INVALID)
    return Build(store, found[0])


def remove_build(store: Store, text: str) -> str:
    """Remove a record and its logs; its id. Raises as `find_build`, CONFLICT while it runs."""
    build = find_build(store, text)
    if build.status == "running":
        raise LaminaError(f"build {build.id} is running", kind=Kind.CONFLICT)
    remove(store, build.id)
    return build.id


def read_lines(path: str) -> Iterator[dict[str, Any]]:
    """The JSON lines of a record's file, as many as a killed build left; none if it is missing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    with open(fd, "rb") as file:
        decompressor = zlib.decompressobj(31)
        rest = b""
        while data := file.read(1 << 16):
            try:
                rest += decompressor.decompress(data)
            except zlib.error:
                return  # torn by a crash of the host: what was before it has been read
            *lines, rest = rest.split(b"\n")
            if len(rest) > MAX_LINE:
                return  # not a line of ours
            for line in lines:
                try:
                    document = json.loads(line)
                except ValueError:
                    return
                yield document


# Entering -----------------------------------------------------------------------------------------


class Place(Record):
    """Where one can go in: `chain` has the files (None: an empty tree), `stack` their layers (empty
    for the files of a step that failed), the rest is the process's. `environment` is the path, in
    the container, of a script that sets what nothing may store.
    """

    label: str
    chain: ChainID | None
    stack: Stack
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    user: str
    network: str
    mounts: tuple[Mount, ...] = ()
    privileged: bool = False
    environment: str = ""

    def shell(self) -> tuple[str, ...]:
        """The shell that the step used, or /bin/sh."""
        used = len(self.argv) == 3 and self.argv[1] == "-c"
        shell = self.argv[0] if used else "/bin/sh"
        if self.environment:
            return ("/bin/sh", "-c", f'. {self.environment} && exec "$0"', shell)
        return (shell,)


def find_place(store: Store, text: str) -> Place:
    """The place `BUILD:STEP`: a number, the text in a step's name, or nothing for the step that
    failed, else the last one.

    Raises:
        LaminaError: NOT_FOUND for the build, the step, or files that are gone.
    """
    name, _, wanted = text.partition(":")
    build = find_build(store, name)
    steps, details = build.steps(), build.details()
    step = _choose(build, steps, wanted)
    if not details:
        raise LaminaError(
            f"build {build.id} was killed: what its steps made is not recorded",
            kind=Kind.NOT_FOUND,
        )
    process = _process(details, step.number)
    stack, chain = _files(build, details, step)
    argv, env, cwd, user, network = process or ((), (), "/", "", "default")
    label = f"{build.id[:12]}:{step.number}"
    return Place(label, chain, stack, argv, env, cwd, user, network)


def choose_step(build: Build, steps: list[Step], wanted: str) -> Step:
    """The step that `wanted` names: a number, a part of its name, or nothing for the one that
    failed, else the last. Raises LaminaError of kind NOT_FOUND.
    """
    return _choose(build, steps, wanted)


def _choose(build: Build, steps: list[Step], wanted: str) -> Step:
    if not wanted:
        found = [step for step in steps if step.outcome == "failed"] or steps[-1:]
    elif wanted.isascii() and wanted.isdigit():
        found = [step for step in steps if step.number == int(wanted)]
    else:
        found = [step for step in steps if wanted in step.name]
    if not found:
        raise LaminaError(
            f"build {build.id} has no step {wanted!r}",
            kind=Kind.NOT_FOUND,
            hint=f"'lamina builds inspect {build.id[:12]}' lists its steps",
        )
    if len(found) > 1 and wanted:
        numbers = ", ".join(str(step.number) for step in found)
        raise LaminaError(f"{wanted!r} is in several steps: {numbers}", kind=Kind.INVALID)
    return found[0]


def _files(build: Build, details: dict[str, Any], step: Step) -> tuple[Stack, ChainID | None]:
    """The stack of the step's result; for a failed one its kept files, else its input's stack."""
    failed = step.outcome == "failed"
    if failed and build.body.get("kept"):
        return (), ChainID(Digest.parse(build.body["kept"]))
    number = str(step.number)
    place = details["inputs"].get(number, [None, None])[1] if failed else None
    if not failed:
        place = details["results"].get(number)
    if place is None and failed and number not in details["inputs"]:
        place = [-1, 0]
    if place is None:
        raise LaminaError(
            f"what step {number} of build {build.id} made is not known: it was not needed",
            kind=Kind.NOT_FOUND,
        )
    stack = _stack(details, place)
    return stack, chain_id(stack)


def _stack(details: dict[str, Any], place: list[int]) -> Stack:
    index, length = place
    texts = details["stacks"][index][:length] if length else []
    return tuple(DiffID(Digest.parse(text)) for text in texts)


def _process(details: dict[str, Any], number: int) -> Any:
    """(argv, env, cwd, user, network) of the step; of one that is no RUN, those of the nearest RUN
    below it, else above it, in the directory of the nearest WORKDIR.
    """
    cwd: str | None = None
    below: int | None = number
    while below is not None:
        row = details["processes"].get(str(below))
        if row is not None:
            return _unpacked_process(details, row, cwd)
        cwd = cwd or details["directories"].get(str(below))
        below = details["inputs"].get(str(below), [None])[0]
    above = {source[0]: int(user) for user, source in details["inputs"].items()}
    next_step = above.get(number)
    while next_step is not None:
        row = details["processes"].get(str(next_step))
        if row is not None:
            return _unpacked_process(details, row, cwd or "/")
        next_step = above.get(next_step)
    return None


def _unpacked_process(details: dict[str, Any], row: list[Any], cwd: str | None) -> Any:
    argv, env, own, user, network = row
    pairs = tuple((name, value) for name, value in details["envs"][env])
    return tuple(argv), pairs, cwd or own, user, network


def enter(
    store: Store,
    place: Place,
    command: tuple[str, ...],
    *,
    terminal: bool,
    interactive: bool,
    host: Host,
    work: Work,
    random: Callable[[int], bytes] = os.urandom,
) -> Container:
    """A throw-away container on the place's files, not started (as `containers.create`); it is
    removed when it ends.

    Raises:
        LaminaError: NOT_FOUND if the files are gone, UNSUPPORTED if there are none.
    """
    options = RunOptions(
        command=command or place.shell(),
        entrypoint=("",),
        env=place.env,
        working_dir=place.cwd,
        user=place.user,
        network={"default": "bridge"}.get(place.network, place.network),
        mounts=tuple(place.mounts),
        privileged=place.privileged,
        interactive=interactive,
        terminal=terminal,
        auto_remove=True,
        log_driver="none",
    )
    id = new_id(random)
    with store.lease("enter"):
        chain = _unpacked(store, place, work=work)
        config = configure_container(
            options,
            RunConfig(),
            origin=Origin(f"build {place.label}", "", str(chain)),
            id=id,
            host_name=os.uname().nodename,
        )
        made, lock = lifecycle.create(
            store, config, id=id, name=new_name(random), created=work.clock(), chain=chain
        )
    return containers.Container(store, made, host=host, config=config, lock=lock)


def _unpacked(store: Store, place: Place, *, work: Work) -> ChainID:
    if place.chain is None:
        raise LaminaError(
            f"{place.label} stands on an empty file system: there is nothing to run in it",
            kind=Kind.UNSUPPORTED,
        )
    if store.snapshots.exists(place.chain):
        return place.chain
    if not place.stack:
        raise LaminaError(
            f"the files of {place.label} are gone", kind=Kind.NOT_FOUND, hint="build it again"
        )
    try:
        chain = ensure_snapshot(store, place.stack, work=work)
    except LaminaError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        raise LaminaError(
            f"the files of {place.label} are gone: {error.what}",
            kind=Kind.NOT_FOUND,
            hint="build it again",
        ) from error
    assert chain is not None
    return chain


def _status(document: Document, body: dict[str, Any]) -> str:
    """running, completed, error, canceled, or killed: its process died without a word."""
    status = str(body.get("status", ""))
    return "killed" if status == "running" and not is_running(document) else status
