# SPDX-License-Identifier: Apache-2.0
"""A subset of Go's text/template, as far as people use it in `docker ... --format`.

Grammar: text with `{{ action }}`, `{{-` and `-}}` trim white space. An action is a pipeline
(`.Field.Sub`, `$`, `$name`, literals, parentheses, function calls, `|`), or one of `if`, `else`,
`else if`, `range [$k, $v :=]`, `with`, `end`, `/* comment */`. Functions: those of docker/cli
(`json`, `split`, `join`, `title`, `lower`, `upper`, `pad`, `truncate`) and of Go (`index`, `len`,
`print`, `println`, `printf`, `not`, `and`, `or`, `eq`, `ne`, `lt`, `le`, `gt`, `ge`, `slice`).
Everything else is refused by name. Values are what JSON holds.
"""

from __future__ import annotations

import re

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
      | (?P<number>-?\d+)
      | (?P<field>(?:\$\w*)?(?:\.\w+)+|\$\w*|\.)
      | (?P<word>[A-Za-z_]\w*)
      | (?P<mark>:=|[()|,])
    )""",
    re.VERBOSE,
)
MAX_TEMPLATE = 64 * 1024  # characters
_MAX_DEPTH = 50  # of parentheses and blocks


class TemplateError(LaminaError):
    kind = Kind.USAGE


class MissingField(TemplateError):
    """A template names a field that the value does not have."""


class _Text(Record):
    text: str


class _Block(Record):
    """`if`, `with` or `range`; `names` are range's variables."""

    word: str
    pipe: object
    body: tuple[object, ...]
    otherwise: tuple[object, ...]
    names: tuple[str, ...] = ()


class _Show(Record):
    pipe: object


class _Literal(Record):
    value: object


class _Field(Record):
    """A chain of names on the dot (`start` empty), on a variable (`$x`), or on a pipeline."""

    start: object
    names: tuple[str, ...]


class _Call(Record):
    function: str
    arguments: tuple[object, ...]


class _Scope(Record):
    dot: object
    variables: tuple[tuple[str, object], ...]


class Template:
    """A parsed template; `render` may be called often."""

    def __init__(self, nodes: tuple[object, ...]) -> None:
        self._nodes = nodes

    def render(self, value: object) -> str:
        """The text for `value`. Raises MissingField, TemplateError."""
        return "".join(_run(self._nodes, _Scope(value, (("$", value),))))

    def fields(self) -> list[str]:
        """The first name of every field the template shows, in order."""
        return [name for node in self._nodes for name in _first_names(node)]


def render(template: str, row: object) -> str:
    """`template` applied to `row` (a mapping, or any JSON value).

    Raises:
        TemplateError: kind USAGE; the template is malformed or uses what is not supported.
        MissingField: kind USAGE; it names a field that is not there.
    """
    return parse_template(template).render(row)


def parse_template(text: str) -> Template:
    """The parsed template. Raises TemplateError."""
    if len(text) > MAX_TEMPLATE:
        raise TemplateError(f"template parsing error: longer than {MAX_TEMPLATE} characters")
    pieces = _split(text)
    nodes, end = _parse_block(pieces, 0, 0)
    if end != len(pieces):
        raise TemplateError(f"template parsing error: unexpected {{{{{pieces[end][1]}}}}}")
    return Template(nodes)


def _split(text: str) -> list[tuple[bool, str]]:
    """(is an action, its text) in order."""
    pieces: list[tuple[bool, str]] = []
    position, trim = 0, False
    for match in _ACTION.finditer(text):
        before = text[position : match.start()]
        before = before.lstrip() if trim else before
        pieces.append((False, before.rstrip() if match[1] else before))
        pieces.append((True, match[2].strip()))
        position, trim = match.end(), bool(match[3])
    rest = text[position:].lstrip() if trim else text[position:]
    if "{{" in rest:
        raise TemplateError("template parsing error: unclosed action")
    pieces.append((False, rest))
    return [piece for piece in pieces if piece[0] or piece[1]]


def _parse_block(
    pieces: Sequence[tuple[bool, str]], position: int, depth: int
) -> tuple[tuple[object, ...], int]:
    """Nodes up to `end`, `else` or the end of the text, and the position of that."""
    if depth > _MAX_DEPTH:
        raise TemplateError("template parsing error: nested too deeply")
    nodes: list[object] = []
    while position < len(pieces):
        is_action, text = pieces[position]
        word = text.partition(" ")[0]
        if not is_action:
            nodes.append(_Text(text))
            position += 1
        elif word in {"end", "else"}:
            return tuple(nodes), position
        elif word in {"if", "with", "range"}:
            node, position = _parse_branch(pieces, position, text, depth)
            nodes.append(node)
        elif text.startswith("/*") and text.endswith("*/"):
            position += 1
        else:
            nodes.append(_Show(_Parser(text).whole()))
            position += 1
    return tuple(nodes), position


def _parse_branch(
    pieces: Sequence[tuple[bool, str]], position: int, text: str, depth: int
) -> tuple[_Block, int]:
    word, _, rest = text.partition(" ")
    names: tuple[str, ...] = ()
    if word == "range" and ":=" in rest:
        before, _, rest = rest.partition(":=")
        names = tuple(name.strip() for name in before.split(","))
        if not all(re.fullmatch(r"\$\w+", name) for name in names) or len(names) > 2:
            raise TemplateError(f"template parsing error: bad variables in {{{{{text}}}}}")
    pipe = _Parser(rest).whole()
    body, position = _parse_block(pieces, position + 1, depth + 1)
    otherwise: tuple[object, ...] = ()
    if position < len(pieces) and pieces[position][1] == "else":
        otherwise, position = _parse_block(pieces, position + 1, depth + 1)
    elif position < len(pieces) and pieces[position][1].startswith("else if "):
        inner = pieces[position][1].removeprefix("else ")
        branch, position = _parse_branch(pieces, position, inner, depth + 1)
        return _Block(word, pipe, body, (branch,), names), position
    if position >= len(pieces) or pieces[position][1] != "end":
        raise TemplateError(f"template parsing error: {{{{{word}}}}} without {{{{end}}}}")
    return _Block(word, pipe, body, otherwise, names), position + 1


class _Parser:
    """Recursive descent over one pipeline."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0

    def whole(self) -> object:
        """The pipeline; nothing may follow it."""
        pipe = self._pipeline()
        if self._next != len(self._tokens):
            raise self._error(f"unexpected {self._tokens[self._next][1]!r}")
        return pipe

    def _error(self, why: str) -> TemplateError:
        return TemplateError(f"template parsing error: {why} in {{{{{self._text}}}}}")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._next] if self._next < len(self._tokens) else ("", "")

    def _pipeline(self) -> object:
        value = self._command(None)
        while self._peek() == ("mark", "|"):
            self._next += 1
            value = self._command(value)
        return value

    def _command(self, piped: object | None) -> object:
        kind, text = self._peek()
        if kind == "word" and text not in {"true", "false", "nil"}:
            self._next += 1
            if text not in _FUNCTIONS:
                raise self._error(f"function {text!r} is not supported")
            arguments = self._operands()
            return _Call(text, (*arguments, piped) if piped is not None else tuple(arguments))
        if piped is not None:
            raise self._error("a function must follow `|`")
        operands = self._operands()
        if len(operands) == 2 and isinstance(operands[0], _Field):
            start, names = operands[0].start, operands[0].names
            if names[-1:] == ("Label",):  # the one method that rows of Docker's have
                return _Call(".Label", (_Field(start, (*names[:-1], "Labels")), operands[1]))
        if len(operands) != 1:
            raise self._error("expected one value")
        return operands[0]

    def _operands(self) -> list[object]:
        found: list[object] = []
        while (operand := self._operand()) is not None:
            found.append(operand)
        return found

    def _operand(self) -> object | None:
        kind, text = self._peek()
        if kind == "" or (kind == "mark" and text != "("):
            return None
        self._next += 1
        if kind == "string":
            return _Literal(text[1:-1] if text[0] == "`" else _unquote(text))
        if kind == "number":
            return _Literal(int(text))
        if kind == "field":
            start, *names = text.split(".")
            return _Field(start, tuple(name for name in names if name))
        if kind == "word":
            return self._constant(text)
        return self._parenthesis()

    def _constant(self, text: str) -> object:
        constants = {"true": True, "false": False, "nil": None}
        if text in constants:
            return _Literal(constants[text])
        if text in _FUNCTIONS:
            return _Call(text, ())
        raise self._error(f"function {text!r} is not supported")

    def _parenthesis(self) -> object:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error("nested too deeply")
        inner = self._pipeline()
        if self._peek() != ("mark", ")"):
            raise self._error("unclosed parenthesis")
        self._next += 1
        self._depth -= 1
        kind, text = self._peek()
        if kind == "field" and text.startswith(".") and text != ".":
            self._next += 1
            return _Field(inner, tuple(text[1:].split(".")))
        return inner


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            if text[position:].strip():
                raise TemplateError(f"template parsing error: bad character in {{{{{text}}}}}")
            return
        yield match.lastgroup or "", match[match.lastgroup or 0]
        position = match.end()


def _unquote(text: str) -> str:
    escapes = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda match: escapes.get(match[1], match[1]), text[1:-1])


def _run(nodes: Sequence[object], scope: _Scope) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, _Text):
            yield node.text
        elif isinstance(node, _Show):
            yield show(_value(node.pipe, scope))
        elif isinstance(node, _Block):
            yield from _run_block(node, scope)


def _run_block(block: _Block, scope: _Scope) -> Iterator[str]:
    value = _value(block.pipe, scope)
    if not _is_true(value):
        yield from _run(block.otherwise, scope)
    elif block.word == "range":
        for key, item in _items(value):
            bound = (item,) if len(block.names) == 1 else (key, item)
            variables = (*scope.variables, *zip(block.names, bound, strict=False))
            yield from _run(block.body, _Scope(item, variables))
    else:
        yield from _run(
            block.body, _Scope(value, scope.variables) if block.word == "with" else scope
        )


def _items(value: object) -> list[tuple[object, object]]:
    if isinstance(value, dict):
        return sorted(value.items())
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    raise TemplateError(f"template error: range can't iterate over {show(value)}")


def _value(node: object, scope: _Scope) -> object:
    if isinstance(node, _Literal):
        return node.value
    if isinstance(node, _Call):
        return _call(node, scope)
    if isinstance(node, _Field):
        return _follow(_start(node.start, scope), node.names)
    raise TemplateError("template error: no value")


def _start(start: object, scope: _Scope) -> object:
    if not isinstance(start, str):
        return _value(start, scope)
    if not start:
        return scope.dot
    for name, value in reversed(scope.variables):
        if name == start:
            return value
    raise TemplateError(f"template error: undefined variable {start!r}")


def _follow(value: object, names: Sequence[str]) -> object:
    for name in names:
        if not isinstance(value, dict) and not hasattr(value, "keys"):
            raise MissingField(f"template error: can't evaluate field {name} in {show(value)}")
        mapping: Mapping[str, object] = value  # type: ignore[assignment]  # it has keys
        if name not in mapping:
            known = ", ".join(sorted(str(key) for key in mapping)[:40])
            raise MissingField(
                f"template error: there is no field {name!r}", hint=f"known fields: {known}"
            )
        value = mapping[name]
    return value


def _call(node: _Call, scope: _Scope) -> object:
    arguments = [_value(argument, scope) for argument in node.arguments]
    try:
        return _FUNCTIONS[node.function](*arguments)
    except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        shown = ", ".join(show(argument) for argument in arguments)
        raise TemplateError(f"template error: {node.function}({shown}): {error}") from error


def show(value: object) -> str:
    """A value as Go prints it: `true`, `[a b]`, `map[a:1]`, `<nil>`."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{k}:{show(v)}" for k, v in sorted(value.items())) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(show(item) for item in value) + "]"
    return str(value)


def _is_true(value: object) -> bool:
    return bool(value)


def _first_names(node: object) -> Iterator[str]:
    if isinstance(node, _Show | _Block):
        yield from _first_names(node.pipe)
    elif isinstance(node, _Call):
        for argument in node.arguments:
            yield from _first_names(argument)
    elif isinstance(node, _Field) and node.names:
        yield node.names[0]


def _json(value: object) -> str:
    import json

    # Go sorts the keys of maps; rows are maps to a template
    return json.dumps(
        value, separators=(",", ":"), ensure_ascii=False, sort_keys=True, default=dict
    )


def _index(value: object, *keys: object) -> object:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, "")
        elif isinstance(value, list | tuple) and isinstance(key, int) and 0 <= key < len(value):
            value = value[key]
        else:
            raise IndexError(f"no index {show(key)} in {show(value)}")
    return value


def _printf(pattern: str, *values: object) -> str:
    if not re.fullmatch(r"(?:[^%]|%%|%-?\d*[sdvq])*", pattern):
        raise ValueError("only %s, %d, %v and %q are supported")
    words = iter(values)

    def one(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        value = next(words, "%!(MISSING)")
        text = _json(show(value)) if match[2] == "q" else show(value)
        width = int(match[1] or 0)
        return text.ljust(-width) if width < 0 else text.rjust(width)

    return re.sub(r"%%|%(-?\d*)([sdvq])", one, pattern)


def _truncate(text: object, length: int) -> str:
    return show(text)[:length]


def _slice(value: Sequence[object], *bounds: int) -> object:
    return value[slice(*bounds)] if len(bounds) > 1 else value[bounds[0] if bounds else 0 :]


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


def _and(*values: object) -> object:
    return next((value for value in values[:-1] if not _is_true(value)), values[-1])


def _or(*values: object) -> object:
    return next((value for value in values[:-1] if _is_true(value)), values[-1])


_FUNCTIONS: dict[str, Callable[..., object]] = {
    "json": _json,
    ".Label": lambda labels, name: labels.named.get(name, ""),
    "index": _index,
    "len": len,
    "lower": str.lower,
    "upper": str.upper,
    "title": lambda text: text[:1].upper() + text[1:],
    "join": lambda values, separator: separator.join(show(value) for value in values),
    "split": str.split,
    "pad": _pad,
    "truncate": _truncate,
    "slice": _slice,
    "print": lambda *values: "".join(show(value) for value in values),
    "println": lambda *values: " ".join(show(value) for value in values) + "\n",
    "printf": _printf,
    "not": lambda value: not _is_true(value),
    "and": _and,
    "or": _or,
    "eq": lambda first, *rest: any(first == other for other in rest),
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
}
