# SPDX-License-Identifier: Apache-2.0
"""The syntax of definitions: HCL's blocks, attributes and templates, and HCL's JSON form.

python-hcl2 parses; `scope` works out what the trees mean. JSON definitions have the same blocks,
and their texts are templates.
"""

from __future__ import annotations

import json
import re

from lamina.bake.values import BakeError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_BLOCKS = frozenset({"variable", "function", "group", "target"})
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)


class Block(Record):
    """A block: its label and its attributes, not evaluated; `origin` is the file, for messages.

    An attribute is a tree of the parser, or `Json` in a JSON definition.
    """

    type: str
    label: str
    attributes: Mapping[str, Any]
    origin: str


class Json(Record):
    """A value of a JSON definition, whose texts are templates."""

    value: Any


class Definition(Record):
    """A file: its blocks in order, and its own attributes, which are variables too."""

    blocks: tuple[Block, ...]
    attributes: Mapping[str, Any]


def parse_hcl(text: str, *, name: str) -> Definition:
    """The blocks of an HCL definition. Raises BakeError, with the line."""
    import hcl2
    from lark.exceptions import LarkError

    try:
        tree: Any = hcl2.parses_to_tree(text if text.endswith("\n") else text + "\n")
    except (LarkError, RecursionError) as error:
        line = getattr(error, "line", None)
        place = f"{name}:{line}" if isinstance(line, int) and line > 0 else name
        reason = str(error).split("\n", 1)[0]
        raise BakeError(f"{place}: cannot parse HCL: {reason}") from error
    blocks: list[Block] = []
    attributes: dict[str, Any] = {}
    for child in subtrees(tree.children[0]):
        if child.data == "attribute":
            attributes[word(child.children[0])] = child.children[2]
        elif child.data == "block":
            blocks.append(_block(child, name))
    return Definition(tuple(blocks), attributes)


def parse_json(text: str, *, name: str) -> Definition:
    """The blocks of a JSON definition. Raises BakeError."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BakeError(f"{name}: cannot parse JSON: {error}") from error
    if not isinstance(document, dict):
        raise BakeError(f"{name}: a bake definition is an object")
    blocks: list[Block] = []
    attributes: dict[str, Any] = {}
    for key, value in document.items():
        if key not in _BLOCKS:
            attributes[key] = Json(value)
            continue
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                raise BakeError(f"{name}: {key} is not an object")
            for label, body in part.items():
                for each in body if isinstance(body, list) else [body]:
                    if not isinstance(each, dict):
                        raise BakeError(f"{name}: {key} {label!r} is not an object")
                    own = {k: Json(v) for k, v in each.items()}
                    blocks.append(Block(key, label, own, name))
    return Definition(tuple(blocks), attributes)


def _block(tree: Any, origin: str) -> Block:
    head, *rest = subtrees(tree)
    kind = word(head)
    labels = [_label(each, origin) for each in rest if each.data in {"string", "identifier"}]
    body = next(each for each in rest if each.data == "body")
    if kind not in _BLOCKS:
        raise BakeError(f"{origin}: unsupported block type {kind!r}")
    if len(labels) != 1:
        raise BakeError(f"{origin}: invalid block label: {kind} needs one, got {labels}")
    attributes: dict[str, Any] = {}
    for child in subtrees(body):
        if child.data == "attribute":
            key = word(child.children[0])
            if key in attributes:
                raise BakeError(f"{origin}: {kind} {labels[0]!r} sets {key} twice")
            attributes[key] = child.children[2]
        elif child.data == "block":
            inner = word(child.children[0])
            if kind != "variable" or inner != "validation":
                raise BakeError(f"{origin}: {kind} {labels[0]!r} has a block {inner!r}")
            own = {
                word(each.children[0]): each.children[2]
                for each in subtrees(next(b for b in subtrees(child) if b.data == "body"))
                if each.data == "attribute"
            }
            attributes.setdefault("validation", []).append(own)
    return Block(kind, labels[0], attributes, origin)


def subtrees(tree: Any) -> Iterator[Any]:
    """The children that are trees, without line ends and comments."""
    for child in tree.children:
        if hasattr(child, "data") and child.data != "new_line_or_comment":
            yield child


def word(tree: Any) -> str:
    return str(tree.children[0])


def _label(tree: Any, origin: str) -> str:
    if tree.data == "identifier":
        return word(tree)
    parts = [str(part.children[0]) for part in subtrees(tree)]
    if any("${" in part for part in parts):
        raise BakeError(f"{origin}: a block label cannot hold a template")
    return "".join(parts)


def unescaped(token: Any) -> str:
    text = str(token)
    if token.type == "ESCAPED_INTERPOLATION":
        return text[1:]
    if token.type == "ESCAPED_DIRECTIVE":
        return text[1:]
    return _ESCAPE.sub(_unescape, text)


def _unescape(found: re.Match[str]) -> str:
    letter = found[1]
    if letter[0] in "uU" and len(letter) > 1:
        return chr(int(letter[1:], 16))
    if letter not in _ESCAPES:
        raise BakeError(f"the escape \\{letter} is not known")
    return _ESCAPES[letter]


def pieces(text: str) -> Iterator[tuple[bool, str]]:
    """(is code, text): what `${...}` holds, and what is between them, `$${` unescaped."""
    plain = ""
    position = 0
    while position < len(text):
        if text.startswith(("$${", "%%{"), position):
            plain += text[position + 1 : position + 3]
            position += 3
        elif text.startswith("%{", position):
            raise BakeError("template directives (%{...}) are not supported in bake files")
        elif text.startswith("${", position):
            if plain:
                yield False, plain
            plain = ""
            end = _end_of_code(text, position + 2)
            yield True, text[position + 2 : end]
            position = end + 1
        else:
            plain += text[position]
            position += 1
    if plain or not text:
        yield False, plain


def _end_of_code(text: str, start: int) -> int:
    """Where the `}` is that ends the code; braces and quotes inside are skipped."""
    depth = 0
    position = start
    while position < len(text):
        letter = text[position]
        if letter == '"':
            position += 1
            while position < len(text) and text[position] != '"':
                position += 2 if text[position] == "\\" else 1
        elif letter == "{":
            depth += 1
        elif letter == "}":
            if not depth:
                return position
            depth -= 1
        position += 1
    raise BakeError("a template's ${ is not closed")


def expression(code: str) -> Any:
    definition = parse_hcl(f"x = ({code})\n", name="template")
    return definition.attributes["x"]
