# SPDX-License-Identifier: Apache-2.0
"""A key as the tree it was made from, as it is stored: to be compared, not only looked up. Pure.

A stored tree is the key's JSON (`solver.keys`) with two members that are not part of the key:
`about` (`site`: the build context's directory; `images`: chainID -> reference, manifest, platform;
`args`: names of ARGs among the variables; `merges`: key -> name and tree of merges below, which
have no records) and `files` (a source's position -> path -> what the file was).
"""

from __future__ import annotations

from lamina.solver.treeform import is_about, is_key, is_listing
from lamina.start.jsontext import dumps, loads
from lamina.start.pattern import DOTALL, pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Trees = Callable[[str], "KeyTree | None"]

_ABOUT = ',"about":'
_FILES = ',"files":'
_NAME = pattern(r"^\[(?:(?P<stage>.*\S) +|(?P<none> *))(?P<number>\d+)/\d+\] (?P<text>.*)$", DOTALL)


class KeyTree:
    """A key and the tree behind it; the text is parsed as far as it is asked for."""

    def __init__(self, key: str, name: str, text: str, *, created: float = 0.0) -> None:
        self.key = key
        self.name = name
        self.text = text
        self.created = created
        self._document: dict[str, Any] | None = None
        self._about: dict[str, Any] | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The key itself: `version`, `op`, `base`, `sources`."""
        if self._document is None:
            head, found, _ = self.text.partition(_ABOUT)
            if not found:
                head, found, _ = self.text.partition(_FILES)
            document = _object(head + "}" if found else head)
            self._document = document if is_key(document) else {}
        return self._document

    @property
    def about(self) -> dict[str, Any]:
        """What was noted beside the key."""
        if self._about is None:
            _, found, rest = self.text.partition(_ABOUT)
            head, more, _ = rest.partition(_FILES)
            about = _object(head if more else head[:-1]) if found else {}
            self._about = about if is_about(about) else {}
        return self._about

    @property
    def op(self) -> dict[str, Any]:
        found = self.document.get("op")
        return found if isinstance(found, dict) else {}

    @property
    def base(self) -> tuple[str, str]:
        """(kind, value) of the identity of the base; of a merge: of the lowest input."""
        if self._is_merge:
            return self._identities[0] if self._identities else ("", "")
        return _identity(self.document.get("base"))

    @property
    def sources(self) -> list[tuple[str, str]]:
        """(kind, value) of what it copies from or mounts; of a merge: of what lies above."""
        return self._identities[1:] if self._is_merge else self._identities

    @property
    def _is_merge(self) -> bool:
        return bool(self.op.get("type") == "Merge")

    @property
    def _identities(self) -> list[tuple[str, str]]:
        found = self.document.get("sources")
        return [_identity(item) for item in found] if isinstance(found, list) else []

    def merge(self, key: str) -> KeyTree | None:
        """The tree of a merge below, which has no record of its own."""
        found = self.about.get("merges", {}).get(key)
        if not isinstance(found, list | tuple) or len(found) != 2:
            return None
        below = KeyTree(key, str(found[0]), str(found[1]))
        below._about = self.about  # merges stand on merges
        return below

    @property
    def stage(self) -> str:
        return split_name(self.name)[0]

    @property
    def instruction(self) -> str:
        return split_name(self.name)[2]

    def files(self) -> list[dict[str, str]]:
        """What each source's selection held, by path; empty where nothing was listed."""
        _, _, rest = self.text.partition(_ABOUT)
        _, found, text = rest.partition(_FILES)
        try:
            listed = loads(text[:-1]) if found else []
        except (ValueError, RecursionError):
            return []
        if not isinstance(listed, list):
            return []
        return [each if is_listing(each) else {} for each in listed]


def annotated(
    tree: str,
    *,
    site: str,
    images: Mapping[str, Sequence[str]],
    merges: Mapping[str, Sequence[str]],
    files: Sequence[Mapping[str, str]],
    arguments: Sequence[str],
) -> str:
    """The key's tree with what explanations need beside it."""
    about: dict[str, object] = {"site": site}
    if arguments:
        about["args"] = arguments
    if images:
        about["images"] = images
    if merges:
        about["merges"] = merges
    text = f"{tree[:-1]}{_ABOUT}{dumps(about, separators=(',', ':'))}"
    if any(files):
        text += f"{_FILES}{dumps(list(files), separators=(',', ':'))}"
    return text + "}"


def with_site(tree: str, site: str) -> str:
    """A stored tree that says it was made in another directory; not a byte of the key changes."""
    head, found, rest = tree.partition(_ABOUT)
    if not found:
        return tree
    about, more, files = rest.partition(_FILES)
    known = _object(about if more else about[:-1])
    known["site"] = site
    text = f"{head}{_ABOUT}{dumps(known, separators=(',', ':'))}"
    return f"{text}{more}{files}" if more else text + "}"


def split_name(name: str) -> tuple[str, int, str]:
    """(stage, number, instruction) of a step's name; no number (0) if it is in another form."""
    found = _NAME.match(name)
    if found is None:
        return "", 0, name
    return found["stage"] or "", int(found["number"]), found["text"]


def _identity(value: object) -> tuple[str, str]:
    if isinstance(value, dict):
        for kind, text in value.items():
            return str(kind), str(text)
    return "", ""


def _object(text: str) -> dict[str, Any]:
    try:
        found = loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
