# SPDX-License-Identifier: Apache-2.0
"""Use cases of `lamina why`: why steps ran, the key trees of a build as a file, and the comparison
of a build with such a file from another machine.
"""

from __future__ import annotations

import json

from lamina.app.builds import choose_step, find_build
from lamina.errors import Kind, LaminaError
from lamina.solver.explain import explain, nearest, sentence
from lamina.solver.keytree import KeyTree, split_name
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lamina.app.builds import Build, Step
    from lamina.solver.explain import Explanation
    from lamina.store.ports import Store

FORMAT = 1
MAX_FILE = 256 << 20  # bytes of an exported file that are read


class Compared(Record):
    """A step of a build beside the one of the file that it was compared with.

    `is_same` says that both have one key. Without an `explanation` there is nothing like it in the
    file, or the step's own key is not known any more (`is_known` is False).
    """

    step: Step
    is_same: bool
    explanation: Explanation | None
    is_known: bool = True


def explained(store: Store, text: str) -> tuple[Build, list[Step]]:
    """The build `BUILD[:STEP]` (empty: the newest) and its steps, or the one that is named.

    Raises LaminaError of kind NOT_FOUND, as `app.builds`.
    """
    name, colon, wanted = text.partition(":")
    build = find_build(store, name)
    steps = build.steps()
    return build, [choose_step(build, steps, wanted)] if colon else steps


def export_trees(store: Store, text: str) -> dict[str, Any]:
    """The key trees of a build's steps as a document; `trees` has those that are still recorded."""
    build, steps = explained(store, text.partition(":")[0])
    keys = _keys(build)
    trees = {row.key: row for row in store.key_history.trees(list(keys.values()))}
    rows = []
    for step in steps:
        found = trees.get(keys.get(step.number, ""))
        row: dict[str, object] = {
            "number": step.number,
            "name": step.name,
            "stage": step.stage,
            "outcome": step.outcome,
        }
        if step.number in keys:
            row["key"] = keys[step.number]
        if found is not None:
            row["tree"] = found.tree
        rows.append(row)
    return {"lamina-keys": FORMAT, "build": build.id, "name": build.name, "steps": rows}


def compare(store: Store, text: str, document: object) -> tuple[Build, list[Compared]]:
    """Each step of the build `text` beside the nearest of an exported document.

    Raises LaminaError of kind INVALID for anything else than such a document, NOT_FOUND.
    """
    others = _read(document)
    build, steps = explained(store, text)
    keys = _keys(build)
    own = {
        row.key: KeyTree(row.key, row.name, row.tree)
        for row in store.key_history.trees(list(keys.values()))
    }
    theirs = {tree.key: tree for tree in others}
    present = frozenset(split_name(step.name)[2] for step in build.steps())

    def tree(key: str) -> KeyTree | None:
        return own.get(key) or theirs.get(key)

    compared = []
    for step in steps:
        key = keys.get(step.number)
        if key is None:
            continue  # a source: it has no key of its own
        if key in theirs:
            compared.append(Compared(step, True, None))
        elif key not in own:
            compared.append(Compared(step, False, None, is_known=False))
        else:
            new = own[key]
            old = nearest(new, _alike(new, others), site="", follows="", present=present)
            found = explain(new, old, tree) if old is not None else None
            compared.append(Compared(step, False, found))
    return build, compared


def told(compared: Compared) -> str:
    """What is to be said of the step, in one line."""
    if compared.is_same:
        return "the same key"
    if not compared.is_known:
        return "its key is not recorded any more"
    if compared.explanation is None:
        return "nothing like it there"
    return sentence(compared.explanation)


def _alike(new: KeyTree, others: list[KeyTree]) -> list[KeyTree]:
    stage, number, text = split_name(new.name)
    same = [tree for tree in others if split_name(tree.name)[2] == text]
    place = [tree for tree in others if split_name(tree.name)[:2] == (stage, number)]
    return [*same, *[tree for tree in place if tree not in same]]


def _keys(build: Build) -> dict[int, str]:
    found = build.details().get("keys", {})
    return {int(number): str(key) for number, key in found.items()}


def _read(document: object) -> list[KeyTree]:
    if not isinstance(document, dict) or document.get("lamina-keys") != FORMAT:
        raise LaminaError(
            "the file does not hold key trees",
            kind=Kind.INVALID,
            hint="make it with 'lamina why --export FILE'",
        )
    rows = document.get("steps")
    trees = []
    for row in rows if isinstance(rows, list) else ():
        fields = [row.get(name) if isinstance(row, dict) else None for name in ("key", "name")]
        tree = row.get("tree", "{}") if isinstance(row, dict) else None
        if fields[0] is None and isinstance(fields[1], str):
            continue
        if not all(isinstance(value, str) for value in (*fields, tree)):
            raise LaminaError("a step of the file is not as exported", kind=Kind.INVALID)
        trees.append(KeyTree(str(fields[0]), str(fields[1]), str(tree)))
    return trees


def parse_document(raw: bytes, name: str) -> object:
    """The JSON document of a file. Raises LaminaError of kind INVALID."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise LaminaError(f"{name} is not JSON: {error}", kind=Kind.INVALID) from error
