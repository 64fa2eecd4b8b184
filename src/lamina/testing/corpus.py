# SPDX-License-Identifier: Apache-2.0
"""The corpus format: many small Dockerfiles with their contexts in a readable text file.

    ## file-to-new-name: a file copied to a name that does not exist gets that name
    --- context
    echo one > one.txt
    --- Dockerfile
    FROM busybox
    COPY one.txt /srv/new

A case begins with `## NAME: SENTENCE`; its sections begin with `--- SECTION`:

| section | content |
|---|---|
| `context` | a shell script that fills the build context; it runs there, umask 022 |
| `Dockerfile` | the file as it is; in the context too |
| `args` | flags of `build`, shell-quoted, the same for both builders |
| `differs` | what is expected not to be the same: `#` lines say why (with a source), the others are facts of both sides as the judge prints them |
| `error` | both builders refuse, and lamina's message is this |
| `buildah` | why it is not asked at all; then `result` or `error` says what is right |
| `result` | what the build changes in the base image (or makes from scratch), as the judge prints it |
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SECTIONS = ("context", "Dockerfile", "args", "differs", "error", "buildah", "result")


class Case(Record):
    """One Dockerfile and what is right for it; `id` is `GROUP/NAME`, `line` where it begins."""

    id: str
    about: str
    file: str
    line: int
    sections: tuple[tuple[str, str], ...]

    def section(self, name: str) -> str | None:
        """The text of a section, None if the case has none."""
        return dict(self.sections).get(name)

    @property
    def args(self) -> tuple[str, ...]:
        """Flags for both builders."""
        return tuple(shlex.split(self.section("args") or ""))

    def lines(self, name: str) -> list[str]:
        """The lines of a section that are not empty and not comments."""
        text = self.section(name) or ""
        return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def read_corpus(directory: str | os.PathLike[str]) -> list[Case]:
    """Every case of the `*.txt` files of a directory, by file name, in their order.

    Raises:
        ValueError: a file does not keep to the format; says where.
    """
    cases: list[Case] = []
    for path in sorted(Path(directory).glob("*.txt")):
        cases += parse_cases(path.read_text(encoding="utf-8"), file=str(path))
    return cases


def read_seals(directory: str | os.PathLike[str]) -> dict[str, str]:
    """The seals of `judged`, by the case's id: what lamina made of it when buildah was last asked."""
    lines = Path(directory, "judged").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def write_seals(directory: str | os.PathLike[str], seals: dict[str, str]) -> None:
    """Write `judged`."""
    text = "".join(f"{id} {seal}\n" for id, seal in sorted(seals.items()))
    Path(directory, "judged").write_text(text, encoding="utf-8")


def parse_cases(text: str, *, file: str) -> list[Case]:
    """The cases of one file; see the module's docstring."""
    group = Path(file).stem
    cases: list[Case] = []
    lines = text.splitlines(keepends=True)
    starts = [at for at, line in enumerate(lines) if line.startswith("## ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        name, colon, about = lines[start][3:].strip().partition(": ")
        where = f"{file}:{start + 1}"
        if not colon or any(case.id == f"{group}/{name}" for case in cases):
            raise ValueError(f"{where}: a case needs a name of its own, a colon and a sentence")
        sections = _sections(lines[start + 1 : end], where)
        cases.append(Case(f"{group}/{name}", about, file, start + 1, sections))
    return cases


def _sections(lines: Iterable[str], where: str) -> tuple[tuple[str, str], ...]:
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in lines:
        if line.startswith("--- "):
            name = line[4:].strip()
            if name not in SECTIONS or name in found:
                raise ValueError(f"{where}: section {name!r} is unknown or there twice")
            current = found[name] = []
        elif current is not None:
            current.append(line)
        elif line.strip():
            raise ValueError(f"{where}: text before the first section")
    if "Dockerfile" not in found:
        raise ValueError(f"{where}: no Dockerfile")
    # the empty line before the next case belongs to the format, not to the section
    return tuple((name, "".join(text).rstrip("\n") + "\n") for name, text in found.items())
