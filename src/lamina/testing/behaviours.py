# SPDX-License-Identifier: Apache-2.0
"""Cases of tests/integration/behaviours: what Docker's users type, and what they see.

A file is a list of cases, each a name, a sentence and a transcript:

    ## user/by-name: a name of the image's /etc/passwd
    $ r -u guest bb id -u
    1000

`$ ` begins a line of shell, the lines after it are what it prints; `[3]` is its status if not 0;
`! text` is what its standard error must contain; `~ pattern` stands for a line that matches. `@root
reason` says that the case is root's alone, `@user reason` the ordinary user's, `@podman reason` that
podman answers otherwise and why; `@alone reason` that podman is not asked.

In the shell `d` is the engine, `r` is `d run --rm --network none`, `$N` and `$M` names of the case's
own, `$P` begins ports that no other engine uses, `$C` a container that runs, for cases which only look, and the working directory is empty.

A line `== FLAGS` begins cases whose lines begin with `> `: all are run by one shell in one container,
`r FLAGS bb`. They must not disturb each other. `==` alone ends that.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NOTES = ("root", "user", "podman", "alone")
PRELUDE = 'r() { d run --rm --network none "$@"; }\n'
# what is started for `$C` once it is needed
SHARED = (
    "-d --network none -e FOO=bar -w /data -u guest -l team=red --hostname box --stop-timeout 3 "
    "-v /data --entrypoint sleep"
)
_MARK = "\x1e"  # between what probes of one container print


class Step(Record):
    """A line of shell and what it is to print."""

    line: str
    lines: tuple[str, ...]  # of standard output, or `~ pattern`
    errors: tuple[str, ...]
    status: int


class Case(Record):
    """`flags` is None for a case with a shell of its own, else of the container that it probes."""

    name: str
    sentence: str
    file: str
    number: int  # its line in the file
    notes: tuple[tuple[str, str], ...]
    flags: str | None
    steps: tuple[Step, ...]

    def note(self, kind: str) -> str | None:
        """The reason that follows `@kind`."""
        return dict(self.notes).get(kind)


class Answer(Record):
    """What a step gave."""

    out: str
    err: str
    status: int

    def shown(self, expected: Step) -> list[str]:
        """The lines of a transcript that this would be written as, near to those expected."""
        lines = self.out.split("\n")
        if lines[-1] == "":
            lines.pop()
        if self.status:
            lines.append(f"[{self.status}]")
        return lines + [f"! {text}" for text in expected.errors if text in self.err]


def parse(text: str, *, file: str) -> Iterator[Case]:
    """The cases of a file. Raises ValueError with the line's number."""
    lines = text.split("\n")
    starts = [number for number, line in enumerate(lines) if line.startswith(("## ", "=="))]
    flags: str | None = None
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        if lines[start].startswith("=="):
            flags = lines[start][2:].strip() or None
            continue
        name, _, sentence = lines[start][3:].partition(": ")
        body = lines[start + 1 : end]
        while body and not body[-1].strip():
            body.pop()
        notes = [line[1:].partition(" ") for line in body if line.startswith("@")]
        body = [line for line in body if not line.startswith(("@", "# "))]
        prompt = "$ " if flags is None else "> "
        steps = tuple(_steps(body, prompt))
        wrong = [kind for kind, _, reason in notes if kind not in NOTES or not reason]
        if wrong or not steps or not sentence:
            raise ValueError(f"{file}:{start + 1}: {name}: a bad note, no step or no sentence")
        reasons = tuple((kind, reason) for kind, _, reason in notes)
        yield Case(name, sentence, file, start + 1, reasons, flags, steps)


def _steps(body: Sequence[str], prompt: str) -> Iterator[Step]:
    starts = [number for number, line in enumerate(body) if line.startswith(prompt)]
    if body and starts[:1] != [0]:
        raise ValueError(f"not a step: {body[0]!r}")
    for start, end in zip(starts, [*starts[1:], len(body)], strict=True):
        lines, errors, status = [], [], 0
        for line in body[start + 1 : end]:
            if line.startswith("! "):
                errors.append(line[2:])
            elif re.fullmatch(r"\[\d+\]", line):
                status = int(line[1:-1])
            else:
                lines.append(line)
        yield Step(body[start][2:], tuple(lines), tuple(errors), status)


def read(folder: Path) -> list[Case]:
    """The cases of all files, whose names must differ."""
    found = [
        case
        for path in sorted(folder.glob("*.txt"))
        for case in parse(path.read_text(encoding="utf-8"), file=str(path))
    ]
    names = [case.name for case in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"cases of one name: {twice}")
    return found


class Engine:
    """What answers: `run` runs a script of `sh` in an empty directory and gives its files' texts.

    `d` is how the script calls the engine.
    """

    def __init__(
        self,
        d: str,
        run: Callable[[str], dict[str, str]],
        *,
        remove: str = "rm -f -v",
        ports: int = 187,
    ) -> None:
        self._remove = remove
        self._ports = ports
        self._d = d
        self._run = run
        self._probed: dict[str, dict[str, list[Answer]]] = {}
        self._is_shared = False

    def answers(self, case: Case, cases: Sequence[Case]) -> list[Answer]:
        """What each step of the case gives; `cases` has those that are probed with it."""
        if case.flags is None:
            return self._alone(case)
        if case.flags not in self._probed:
            batch = [each for each in cases if each.flags == case.flags]
            self._probed[case.flags] = self._probe(case.flags, batch)
        return self._probed[case.flags][case.name]

    def _script(self, lines: str) -> str:
        return f'd() {{ {self._d} "$@"; }}\n{PRELUDE}{lines}'

    def _alone(self, case: Case) -> list[Answer]:
        if any("$C" in step.line for step in case.steps) and not self._is_shared:
            started = self._run(self._script(f"d run {SHARED} --name shared bb 600 2>err.0"))
            assert not started.get("err.0"), started
            self._is_shared = True
        name = case.name.replace("/", "-")
        lines = f"C=shared N={name} M={name}-2 P={self._ports}\n"
        for number, step in enumerate(case.steps):
            lines += f"{{ {step.line}\n}} >out.{number} 2>err.{number}; echo $? >status.{number}\n"
        made = self._run(self._script(lines))
        answers = []
        for number in range(len(case.steps)):
            status = made.get(f"status.{number}", "")
            assert status, f"{case.name}: the shell ended early: {made}"
            answers.append(Answer(made[f"out.{number}"], made[f"err.{number}"], int(status)))
        return answers

    def _probe(self, flags: str, batch: Sequence[Case]) -> dict[str, list[Answer]]:
        """Run the steps of all cases in one container."""
        inside = ""
        for case in batch:
            for step in case.steps:
                inside += f"( {step.line}\n) 2>&1; printf '{_MARK}%s{_MARK}' $?\n"
        line = f"r {flags} bb sh -c {shlex.quote(inside)} >out 2>err"
        made = self._run(self._script(line))
        parts = made["out"].split(_MARK)
        assert not made["err"], f"{flags}: {made}"
        assert len(parts) % 2, f"{flags}: the shell ended early: {made}"
        found: dict[str, list[Answer]] = {}
        at = 0
        for case in batch:
            for _ in case.steps:
                answer = Answer(parts[at], "", int(parts[at + 1]))
                found.setdefault(case.name, []).append(answer)
                at += 2
        return found

    def remove_all(self) -> None:
        """Remove the containers that the cases left."""
        script = (
            f'ids=$(d ps -aq); [ -z "$ids" ] || d {self._remove} $ids >out 2>&1 || echo >err.no'
        )
        done = self._run(self._script(script))
        assert "err.no" not in done, done


def mismatch(case: Case, answers: Sequence[Answer], *, errors: bool = True) -> str:
    """How the answers differ from the transcript; empty if they do not.

    Without `errors`, texts of standard error are not compared, nor which status follows one: they
    are each engine's own (podman's for what it refuses is 125 or 126, where Docker's is often 1).
    """
    for step, answer in zip(case.steps, answers, strict=True):
        shown = answer.shown(step)
        lines = [line for line in shown if not line.startswith("! ")]
        if not errors and step.errors and step.status and answer.status:
            lines[-1] = f"[{step.status}]"
        status = [f"[{step.status}]"] if step.status else []
        expected = [*step.lines, *status]
        is_alike = len(lines) == len(expected) and all(map(_matches, expected, lines))
        missing = [text for text in step.errors if text not in answer.err]
        if not is_alike or (errors and missing):
            wanted = "\n".join([*expected, *(f"! {text}" for text in step.errors)])
            return (
                f"$ {step.line}\nexpected:\n{wanted}\ngot:\n"
                + "\n".join(shown)
                + f"\nstandard error:\n{answer.err}"
            )
    return ""


def _matches(expected: str, line: str) -> bool:
    if expected.startswith("~ "):
        return re.fullmatch(expected[2:], line) is not None
    return expected == line
