# SPDX-License-Identifier: Apache-2.0
"""Whether a stored key tree has the form that `solver.keytree` reads. Pure.

Trees come from other machines too (imported caches, `why --against`) and from other versions of
lamina: one that is formed in another way counts as unknown, so that it can break no build.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def is_key(document: Mapping[str, object]) -> bool:
    """Whether the key itself is: `op` as `plan.graph` writes it, a list of `sources`."""
    op, sources = document.get("op", {}), document.get("sources", [])
    if not isinstance(op, dict) or not isinstance(sources, list):
        return False
    actions, argv = op.get("actions", []), op.get("argv", [])
    return (
        isinstance(op.get("type", ""), str)
        and _is_texts(argv)
        and (bool(argv) or op.get("type") != "Exec")
        and _is_pairs(op.get("env") or [])
        and _is_objects(op.get("mounts") or [])
        and _is_objects(actions)
        and all(isinstance(action.get("patterns", []), list) for action in actions)
    )


def is_about(about: Mapping[str, object]) -> bool:
    """Whether what was noted beside a key is (`keytree.annotated`)."""
    images, merges = about.get("images", {}), about.get("merges", {})
    return (
        _is_texts(about.get("args", []))
        and isinstance(merges, dict)
        and isinstance(images, dict)
        and all(_is_texts(row) and len(row) == 3 for row in images.values())
    )


def is_listing(files: object) -> bool:
    """Whether it is what one source's selection held: texts by path."""
    return isinstance(files, dict) and _is_texts(list(files.values()))


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_pairs(value: object) -> bool:
    return isinstance(value, list) and all(_is_texts(item) and len(item) == 2 for item in value)


def _is_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)
