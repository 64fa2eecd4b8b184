# SPDX-License-Identifier: Apache-2.0
"""Variables, functions, and the value of an expression.

HCL's specification (hclsyntax/spec.md) as far as bake files go: template directives are refused by
name.
"""

from __future__ import annotations

import json
import re

from lamina.bake.functions import call_builtin
from lamina.bake.hcl import (
    Block,
    Definition,
    Json,
    expression,
    pieces,
    subtrees,
    unescaped,
    word,
)
from lamina.bake.values import (
    BakeError,
    Blocks,
    get,
    joined,
    operate,
    to_boolean,
    to_list,
    to_number,
    to_text,
    whole,
)
from lamina.errors import LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

_HEREDOC = re.compile(r"<<-?([\w.-]+)\r?\n(.*?)[ \t]*\1\r?\n?\Z", re.DOTALL)
_MAX_DEPTH = 200  # of functions that call each other
_LAZY = frozenset({"try", "can"})


class Scope:
    """The variables and functions of a definition; values are worked out when they are used.

    `builtins` are set by bake itself, `lookup` gives a variable's override (environment, --var).
    """

    def __init__(
        self,
        definitions: Sequence[Definition],
        *,
        builtins: Mapping[str, str],
        lookup: Callable[[str], str | None],
    ) -> None:
        self._lookup = lookup
        self._attributes: dict[str, Any] = {}
        self.variables: dict[str, Block] = {}
        self._functions: dict[str, Block] = {}
        self.blocks: list[Block] = []
        for definition in definitions:
            self._attributes.update(definition.attributes)
            for block in definition.blocks:
                if block.type == "variable":
                    self.variables[block.label] = block
                elif block.type == "function":
                    self._functions[block.label] = block
                else:
                    self.blocks.append(block)
        self._known: dict[str, Any] = dict(builtins)
        self._busy: set[str] = set()
        self._depth = 0

    def check(self) -> None:
        """Work out every variable and attribute, so that a wrong one is an error though unused."""
        for name in (*self._attributes, *self.variables):
            self.variable(name)

    def variable(self, name: str) -> Any:
        """The variable's value. Raises BakeError."""
        if name in self._known:
            return self._known[name]
        if name in self._busy:
            raise BakeError(f"variable cycle not allowed for {name}")
        self._busy.add(name)
        try:
            self._known[name] = self._work_out(name)
        finally:
            self._busy.discard(name)
        return self._known[name]

    def _work_out(self, name: str) -> Any:
        block = self.variables.get(name)
        if name in self._attributes and block is None:
            return self.value(self._attributes[name])
        if block is None:
            raise BakeError(f"undefined variable {name!r}")
        _known_keys(block, {"default", "type", "description", "validation"})
        source = self._attributes.get(name, block.attributes.get("default"))
        default = self.value(source) if source is not None else None
        override = self._lookup(name)
        value = default
        if override is not None:
            value = _override(
                name, override, _type_of(block), default, has_default=source is not None
            )
        elif source is None:
            value = None if "type" in block.attributes else ""
        for validation in _validations(block):
            self._validate(name, value, validation)
        return value

    def _validate(self, name: str, value: Any, validation: Mapping[str, Any]) -> None:
        condition = validation.get("condition")
        if condition is None:
            raise BakeError(f"variable {name}: a validation needs a condition")
        if self.value(condition, {name: value}) is not True:
            message = validation.get("error_message")
            text = str(self.value(message, {name: value})) if message is not None else "not valid"
            raise BakeError(f"variable {name}: {text}")

    # Expressions ----------------------------------------------------------------------------

    def value(self, source: Any, local: Mapping[str, Any] | None = None) -> Any:
        """The value of an attribute, `local` names first. Raises BakeError."""
        if isinstance(source, Json):
            return self._json(source.value, local or {})
        try:
            return self._tree(source, local or {})
        except RecursionError as error:
            raise BakeError("an expression is nested too deeply") from error
        except (TypeError, ArithmeticError) as error:
            raise BakeError(f"cannot evaluate an expression: {error}") from error

    def _json(self, value: Any, local: Mapping[str, Any]) -> Any:
        if isinstance(value, str):
            return self.template(value, local)
        if isinstance(value, list):
            return [self._json(each, local) for each in value]
        if isinstance(value, dict):
            return {
                to_text(self.template(key, local)): self._json(each, local)
                for key, each in value.items()
            }
        return value

    def template(self, text: str, local: Mapping[str, Any]) -> Any:
        """A text with `${...}`; one that is nothing else gives its value as it is."""
        parts: list[Any] = []
        for is_code, piece in pieces(text):
            parts.append(self._tree(expression(piece), local) if is_code else piece)
        return joined(parts)

    def _tree(self, tree: Any, local: Mapping[str, Any]) -> Any:
        work = getattr(self, f"_do_{tree.data}", None)
        if work is None:
            raise BakeError(f"{str(tree.data).replace('_', ' ')} is not supported in bake files")
        return work(tree, local)

    def _do_expr_term(self, tree: Any, local: Mapping[str, Any]) -> Any:
        return self._tree(next(subtrees(tree)), local)

    def _do_identifier(self, tree: Any, local: Mapping[str, Any]) -> Any:
        name = word(tree)
        if name in local:
            return local[name]
        if name in {"target", "group"}:
            return Blocks(lambda label: self._own(name, label))
        return self.variable(name)

    def _do_literal_value(self, tree: Any, local: Mapping[str, Any]) -> Any:
        return {"true": True, "false": False, "null": None}[word(tree)]

    def _do_int_lit(self, tree: Any, local: Mapping[str, Any]) -> Any:
        return int(word(tree))

    def _do_float_lit(self, tree: Any, local: Mapping[str, Any]) -> Any:
        return whole(float(word(tree)))

    def _do_string(self, tree: Any, local: Mapping[str, Any]) -> Any:
        parts: list[Any] = []
        for part in subtrees(tree):
            child = part.children[0]
            if not hasattr(child, "data"):
                parts.append(unescaped(child))
            elif child.data == "interpolation":
                parts.append(self._tree(next(subtrees(child)), local))
            else:
                raise BakeError("template directives (%{...}) are not supported in bake files")
        return joined(parts)

    def _do_heredoc_template(self, tree: Any, local: Mapping[str, Any]) -> Any:
        found = _HEREDOC.match(word(tree))
        assert found is not None
        return to_text(self.template(found[2], local))

    def _do_heredoc_template_trim(self, tree: Any, local: Mapping[str, Any]) -> Any:
        found = _HEREDOC.match(word(tree))
        assert found is not None
        lines = found[2].split("\n")
        indents = [len(line) - len(line.lstrip(" \t")) for line in lines if line.strip()]
        cut = min(indents, default=0)
        return to_text(self.template("\n".join(line[cut:] for line in lines), local))

    def _do_tuple(self, tree: Any, local: Mapping[str, Any]) -> Any:
        return [self._tree(child, local) for child in subtrees(tree)]

    def _do_object(self, tree: Any, local: Mapping[str, Any]) -> Any:
        found: dict[str, Any] = {}
        for element in subtrees(tree):
            key, value = subtrees(element)
            found[self._key(next(subtrees(key)), local)] = self._tree(value, local)
        return found

    def _key(self, tree: Any, local: Mapping[str, Any]) -> str:
        """A bare word is itself; other keys are expressions."""
        inner = next(subtrees(tree), None) if tree.data == "expr_term" else None
        is_grouped = tree.data == "expr_term" and str(tree.children[0]) == "("
        if inner is not None and inner.data in {"identifier", "literal_value"} and not is_grouped:
            return word(inner)
        if tree.data == "keyword":
            return word(tree)
        return to_text(self._tree(tree, local))

    def _own(self, kind: str, label: str) -> dict[str, Any]:
        """The own attributes of a block. Raises BakeError."""
        for block in self.blocks:
            if block.type == kind and block.label == label:
                own = block.attributes.items()
                skip = {"matrix", "name"}
                return {key: self.value(each) for key, each in own if key not in skip}
        raise BakeError(f"undefined {kind} {label!r}")

    def _do_conditional(self, tree: Any, local: Mapping[str, Any]) -> Any:
        condition, yes, no = subtrees(tree)
        return self._tree(yes if to_boolean(self._tree(condition, local)) else no, local)

    def _do_unary_op(self, tree: Any, local: Mapping[str, Any]) -> Any:
        value = self._tree(next(subtrees(tree)), local)
        return not to_boolean(value) if str(tree.children[0]) == "!" else whole(-to_number(value))

    def _do_binary_op(self, tree: Any, local: Mapping[str, Any]) -> Any:
        left, term = subtrees(tree)
        operator, right = subtrees(term)
        first = self._tree(left, local)
        second = self._tree(right, local)
        return operate(word(operator), first, second)

    def _do_index_expr_term(self, tree: Any, local: Mapping[str, Any]) -> Any:
        base, index = subtrees(tree)
        value = self._tree(base, local)
        if index.data == "short_index":
            return get(value, int(index.children[1]))
        return get(value, self._tree(next(subtrees(index)), local))

    def _do_get_attr_expr_term(self, tree: Any, local: Mapping[str, Any]) -> Any:
        base, attribute = subtrees(tree)
        return get(self._tree(base, local), word(next(subtrees(attribute))))

    def _do_attr_splat_expr_term(self, tree: Any, local: Mapping[str, Any]) -> Any:
        return self._splat(tree, local)

    def _do_full_splat_expr_term(self, tree: Any, local: Mapping[str, Any]) -> Any:
        return self._splat(tree, local)

    def _splat(self, tree: Any, local: Mapping[str, Any]) -> Any:
        base, splat = subtrees(tree)
        value = self._tree(base, local)
        items = value if isinstance(value, list) else [] if value is None else [value]
        for step in subtrees(splat):
            if step.data == "get_attr":
                items = [get(item, word(next(subtrees(step)))) for item in items]
            elif step.data == "short_index":
                items = [get(item, int(step.children[1])) for item in items]
            else:
                index = self._tree(next(subtrees(step)), local)
                items = [get(item, index) for item in items]
        return items

    def _do_for_tuple_expr(self, tree: Any, local: Mapping[str, Any]) -> Any:
        intro, result, *condition = subtrees(tree)
        return [
            self._tree(result, names)
            for names in self._for(intro, local)
            if self._holds(condition, names)
        ]

    def _do_for_object_expr(self, tree: Any, local: Mapping[str, Any]) -> Any:
        intro, key, value, *condition = subtrees(tree)
        groups = any(str(child) == "..." for child in tree.children)
        found: dict[str, Any] = {}
        for names in self._for(intro, local):
            if not self._holds(condition, names):
                continue
            name = to_text(self._tree(key, names))
            item = self._tree(value, names)
            if groups:
                found.setdefault(name, []).append(item)
            elif name in found:
                raise BakeError(f"two elements of a for expression have the key {name!r}")
            else:
                found[name] = item
        return found

    def _for(self, intro: Any, local: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        *names, source = subtrees(intro)
        words = [word(name) for name in names]
        value = self._tree(source, local)
        pairs: Any = value.items() if isinstance(value, dict) else enumerate(to_list(value))
        for key, item in pairs:
            bound = (key, item) if len(words) == 2 else (item,)
            yield {**local, **dict(zip(words, bound, strict=True))}

    def _holds(self, condition: Sequence[Any], names: Mapping[str, Any]) -> bool:
        return not condition or to_boolean(self._tree(next(subtrees(condition[0])), names))

    def _do_function_call(self, tree: Any, local: Mapping[str, Any]) -> Any:
        name = "::".join(word(child) for child in subtrees(tree) if child.data == "identifier")
        given = next((child for child in subtrees(tree) if child.data == "arguments"), None)
        trees = list(subtrees(given)) if given is not None else []
        if name in _LAZY and name not in self._functions:
            return self._lazily(name, trees, local)
        arguments = [self._tree(each, local) for each in trees]
        if given is not None and any(str(child) == "..." for child in given.children):
            arguments = [*arguments[:-1], *to_list(arguments[-1])]
        return self.call(name, arguments)

    def _lazily(self, name: str, trees: Sequence[Any], local: Mapping[str, Any]) -> Any:
        error: LaminaError | None = None
        for tree in trees:
            try:
                value = self._tree(tree, local)
            except LaminaError as failure:
                error = failure
            else:
                return True if name == "can" else value
        if name == "can":
            return False
        raise error or BakeError("try needs an argument")

    def call(self, name: str, arguments: Sequence[Any]) -> Any:
        """The result of a function of the file or of bake's. Raises BakeError."""
        block = self._functions.get(name)
        if block is None:
            return call_builtin(name, arguments)
        params = [word(next(subtrees(each))) for each in _names(block, "params")]
        variadic = block.attributes.get("variadic_params")
        if len(arguments) < len(params) or (len(arguments) > len(params) and variadic is None):
            raise BakeError(f"function {name} takes {len(params)} arguments, got {len(arguments)}")
        local = dict(zip(params, arguments, strict=False))
        if variadic is not None:
            local[word(next(subtrees(variadic)))] = list(arguments[len(params) :])
        if self._depth > _MAX_DEPTH:
            raise BakeError(f"function {name} calls itself too often")
        self._depth += 1
        try:
            return self._tree(block.attributes["result"], local)
        finally:
            self._depth -= 1


def _names(block: Block, key: str) -> list[Any]:
    source = block.attributes.get(key)
    if source is None or "result" not in block.attributes or isinstance(source, Json):
        raise BakeError(f"{block.origin}: function {block.label!r} needs params and result")
    return list(subtrees(next(subtrees(source))))


def _known_keys(block: Block, keys: set[str]) -> None:
    for key in block.attributes:
        if key not in keys:
            raise BakeError(
                f"{block.origin}: {block.type} {block.label!r}: unsupported argument {key!r}"
            )


def _validations(block: Block) -> list[Mapping[str, Any]]:
    found = block.attributes.get("validation", [])
    if isinstance(found, Json):
        each = found.value if isinstance(found.value, list) else [found.value]
        return [{key: Json(value) for key, value in one.items()} for one in each]
    return list(found)


def _type_of(block: Block) -> str:
    """`string`, `number`, `bool`, `list`..., empty if none is declared."""
    source = block.attributes.get("type")
    if source is None:
        return ""
    if isinstance(source, Json):
        return str(source.value).partition("(")[0]
    inner = next(subtrees(source))
    if inner.data == "function_call":
        return word(next(subtrees(inner)))
    return word(inner)


def _override(name: str, text: str, kind: str, default: Any, *, has_default: bool) -> Any:
    """An override's text as a value of the variable's type, or of its default's."""
    if not kind:
        kind = "string"
        if has_default and isinstance(default, bool):
            kind = "bool"
        elif has_default and isinstance(default, int | float):
            kind = "number"
        elif has_default and isinstance(default, list | dict):
            raise BakeError(f"unsupported type for variable {name}: declare its type")
    if kind == "string":
        return text
    if kind == "bool":
        if text.lower() not in {"1", "t", "true", "0", "f", "false"}:
            raise BakeError(f"failed to parse {name} as bool")
        return text.lower() in {"1", "t", "true"}
    if kind == "number":
        try:
            return to_number(text)
        except BakeError:
            raise BakeError(f"failed to parse {name} as number") from None
    if kind in {"list", "set", "tuple"}:
        return [part.strip() for part in text.split(",")] if text else []
    if kind in {"map", "object"}:
        try:
            return json.loads(text)
        except ValueError:
            raise BakeError(f"failed to parse {name} as JSON") from None
    raise BakeError(f"unsupported type {kind} for variable {name}")
