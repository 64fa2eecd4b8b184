# SPDX-License-Identifier: Apache-2.0
"""Writes src/lamina/start/patterncodes.py: the patterns of a build as the regular-expression engine takes them.

    PYTHONPATH=src python3.11 scripts/patterns.py

Run it with the oldest Python that lamina supports, after a change of one of these patterns.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

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
    import _sre

    rows = "".join(f"    {key!r}: {compiled(*key)!r},\n" for key in patterns())
    TARGET.write_text(
        "# SPDX-License-Identifier: Apache-2.0\n"
        '"""Compiled patterns for `lamina.start.pattern`, by text and flags. Written by scripts/patterns.py."""\n\n'
        "from __future__ import annotations\n\n"
        "# fmt: off\n"
        f"MAGIC = {_sre.MAGIC}  # of CPython {sys.version_info[0]}.{sys.version_info[1]}\n"
        f"CODESIZE = {_sre.CODESIZE}\n"
        "CODES: dict[tuple[str, int], tuple[int, tuple[int, ...], int, tuple[tuple[str, int], ...], "
        "tuple[str | None, ...]]] = {\n"
        f"{rows}}}\n"
    )


if __name__ == "__main__":
    main()
