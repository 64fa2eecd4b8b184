# SPDX-License-Identifier: Apache-2.0
"""Judge cases of tests/corpus without pytest: `scripts/corpus.py [--write] [WORD ...]`.

Runs the cases whose id contains one of the words (all without words) and prints what the sections
`error`, `differs` and `result` should hold. With --write the sections are changed in the files;
the comments of `differs` (the reasons) stay, and the seals in `judged` are renewed. Read the diff
before you commit it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from lamina.testing.corpus import Case, parse_cases, read_corpus, read_seals, write_seals
from lamina.testing.peers import Peers

CORPUS = Path(__file__).resolve().parent.parent / "tests" / "corpus"
JUDGED = ("error", "differs", "result")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("words", nargs="*")
    args = parser.parse_args()
    corpus = read_corpus(CORPUS)
    known = read_seals(CORPUS)
    seals = {case.id: known[case.id] for case in corpus if case.id in known}
    cases = [
        case for case in corpus if not args.words or any(word in case.id for word in args.words)
    ]
    peers = Peers(Path(tempfile.mkdtemp(prefix="corpus-")))
    wrong = 0
    try:
        peers.start()
        for case in cases:
            judgement = peers.judge(case)
            found = judgement.sections
            if all(found.get(name, []) == case.lines(name) for name in JUDGED):
                seals[case.id] = judgement.seal
                continue
            seals.pop(case.id, None)
            wrong += 1
            print(f"## {case.id}")
            for name in JUDGED:
                for line in found.get(name, []):
                    print(f"   {name}: {line}" + " (new)" * (line not in case.lines(name)))
                for line in case.lines(name):
                    if line not in found.get(name, []):
                        print(f"   {name}: {line} (gone)")
            sys.stdout.flush()
            if args.write:
                rewrite(case, found)
        if args.write:
            write_seals(CORPUS, seals)
    finally:
        peers.close()
    print(f"{len(cases)} cases, {wrong} not as written")
    return bool(wrong) and not args.write


def rewrite(case: Case, found: dict[str, list[str]]) -> None:
    """Put the judged sections of a case into its file."""
    path = Path(case.file)
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    (now,) = [each for each in parse_cases(text, file=case.file) if each.id == case.id]
    after = [i for i, line in enumerate(lines) if i >= now.line and line.startswith("## ")]
    end = after[0] if after else len(lines)
    kept = [(name, body) for name, body in now.sections if name not in JUDGED]
    for name in JUDGED:
        if name in found:
            old = (now.section(name) or "").splitlines(keepends=True)
            reasons = "".join(line for line in old if line.startswith("#"))
            kept.append((name, reasons + "".join(f"{line}\n" for line in found[name])))
    body = "".join(f"--- {name}\n{part}" for name, part in kept)
    trailer = "\n" if end < len(lines) else ""
    path.write_text("".join([*lines[: now.line], body, trailer, *lines[end:]]), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
