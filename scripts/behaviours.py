# SPDX-License-Identifier: Apache-2.0
"""Run cases of tests/integration/behaviours without pytest: `scripts/behaviours.py [WORD ...]`.

Prints what differs from the transcripts, with lamina as root and as an ordinary user and with podman.
--write puts what lamina as root gives into the files: read the diff against Docker's documentation
before you commit it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from lamina.testing.behaviours import Answer, Case, mismatch, read
from lamina.testing.engines import ENGINES

FOLDER = Path(__file__).resolve().parent.parent / "tests/integration/behaviours/cases"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    cases = read(FOLDER)
    chosen = [c for c in cases if not args.words or any(word in c.name for word in args.words)]
    wrong = 0
    for name in args.engines.split(","):
        left_out = {"root": ("user",), "user": ("root",), "podman": ("user", "alone")}[name]
        asked = [case for case in cases if not any(case.note(kind) for kind in left_out)]
        with (
            tempfile.TemporaryDirectory(prefix="behaviours-") as place,
            ENGINES[name](Path(place)) as engine,
        ):
            for case in asked:
                if case not in chosen:
                    continue
                answers = engine.answers(case, asked)
                if args.write and name == "root":
                    write(case, answers)
                    continue
                found = mismatch(case, answers, errors=name != "podman")
                if name == "podman" and case.note("podman"):
                    found = "" if found else "podman answers the same by now\n"
                if found:
                    wrong += 1
                    print(f"## {name} {case.name}\n{found}", flush=True)
    print(f"{len(chosen)} cases, {wrong} not as written")
    return bool(wrong)


def write(case: Case, answers: list[Answer]) -> None:
    """Put the answers into the case's file, where they differ."""
    if not mismatch(case, answers):
        return
    path = Path(case.file)
    lines = path.read_text(encoding="utf-8").split("\n")
    (start,) = [n for n, line in enumerate(lines) if line.startswith(f"## {case.name}: ")]
    ends = [n for n in range(start + 1, len(lines)) if lines[n].startswith(("## ", "=="))]
    end = ends[0] if ends else len(lines)
    body = [line for line in lines[start + 1 : end] if line.startswith(("@", "# "))]
    for step, answer in zip(case.steps, answers, strict=True):
        body.append(("$ " if case.flags is None else "> ") + step.line)
        body += answer.shown(step)
        if answer.err and not step.errors:
            body.append(f"! {answer.err.splitlines()[0].removeprefix('lamina: ')}")
    path.write_text("\n".join([*lines[: start + 1], *body, "", *lines[end:]]), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
