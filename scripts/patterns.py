# SPDX-License-Identifier: Apache-2.0
"""Writes src/lamina/start/patterncodes.py: the patterns of a build as the regular-expression engine takes them.

    PYTHONPATH=src python3 scripts/patterns.py

Run it with any Python that lamina supports, after a change of one of these patterns. The engines of all of
them take the same codes for these patterns: a test of each Python compares.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

# what the engines call themselves (_sre.MAGIC): CPython 3.11, 3.12, 3.13 with 3.14
ENGINES = (20220615, 20221023, 20230612)
CODESIZE = 4  # bytes of a number, _sre.CODESIZE
SOURCE = Path(__file__).parents[1] / "src/lamina"
TARGET = SOURCE / "start/patterncodes.py"


def patterns() -> list[tuple[str, int]]:
    """(text, flags) of the lazy patterns of all modules, sorted."""
    found: set[tuple[str, int]] = set()
    for path in SOURCE.rglob("*.py"):
        if "from lamina.start.pattern import" not in path.read_text():
            continue
        name = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        for value in vars(importlib.import_module(name)).values():
            if type(value).__module__ == "lamina.start.pattern":
                found.add((value._text, value._flags))
    return sorted(found)


def compiled(text: str, flags: int) -> tuple[object, ...]:
    """What `re` gives to `_sre.compile` for the pattern, as in re._compiler.compile."""
    tree = re._parser.parse(text, flags)  # type: ignore[attr-defined]
    code = re._compiler._code(tree, flags)  # type: ignore[attr-defined]
    by_number = [None] * tree.state.groups
    for name, number in tree.state.groupdict.items():
        by_number[number] = name
    return (
        flags | tree.state.flags,
        tuple(int(word) for word in code),
        tree.state.groups - 1,
        tuple(tree.state.groupdict.items()),
        tuple(by_number),
    )


def main() -> None:
    rows = "".join(f"    {key!r}: {compiled(*key)!r},\n" for key in patterns())
    TARGET.write_text(
        "# SPDX-License-Identifier: Apache-2.0\n"
        '"""Compiled patterns for `lamina.start.pattern`, by text and flags. Written by scripts/patterns.py."""\n\n'
        "from __future__ import annotations\n\n"
        "# fmt: off\n"
        f"ENGINES = {ENGINES}  # _sre.MAGIC of CPython 3.11, 3.12, 3.13 with 3.14\n"
        f"CODESIZE = {CODESIZE}\n"
        "CODES: dict[tuple[str, int], tuple[int, tuple[int, ...], int, tuple[tuple[str, int], ...], "
        "tuple[str | None, ...]]] = {\n"
        f"{rows}}}\n"
    )


if __name__ == "__main__":
    main()
