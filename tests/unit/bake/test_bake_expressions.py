# SPDX-License-Identifier: Apache-2.0
"""HCL in bake files: expressions, templates, variables and functions."""

from __future__ import annotations

import pytest

from lamina.bake.hcl import parse_hcl, parse_json
from lamina.bake.scope import Scope
from lamina.bake.values import BakeError
from lamina.errors import Kind, LaminaError


def scope(text: str, **overrides: str) -> Scope:
    return Scope(
        [parse_hcl(text, name="docker-bake.hcl")], builtins={"B": "built"}, lookup=overrides.get
    )


def value(code: str, **overrides: str) -> object:
    return scope(f'x = {code}\nvariable "V" {{ default = "v" }}\n', **overrides).variable("x")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("7 / 2", 3.5),
        ("-1 + 3", 2),
        ("5 % 3 == 2 && !false", True),
        ('"a" == "a" ? "yes" : "no"', "yes"),
        ('"1" == 1', False),
        ('"x-${V}-${1 + 1}-${true}"', "x-v-2-true"),
        ('"${[1, 2]}"', [1, 2]),
        (r'"tab\tquote\"\u00e9"', 'tab\tquote"é'),
        ('"$${V} %%{ if }"', "${V} %{ if }"),
        ('[for x in ["a", "b"] : upper(x) if x != "a"]', ["B"]),
        ("{for i, x in [4, 5] : x => i}", {"4": 0, "5": 1}),
        ('{for x in ["a", "b"] : "k" => x...}', {"k": ["a", "b"]}),
        ('{a = 1, "b" = 2, (V) = 3, in = 4}', {"a": 1, "b": 2, "v": 3, "in": 4}),
        ('{a = [{b = "c"}]}.a[0].b', "c"),
        ("[{n = 1}, {n = 2}].*.n", [1, 2]),
        ("[{n = 1}, {n = 2}][*].n", [1, 2]),
        ('try(V.nothing, "fallback")', "fallback"),
        ("can(1 / 0)", False),
        ('concat([["a"], ["b", "c"]]...)', ["a", "b", "c"]),
        ('format("%s-%03d-%q", "a", 7, "b")', 'a-007-"b"'),
        ('regex_replace("v1.2", "^v([0-9]+)", "major $1 ")', "major 1 .2"),
        ('join(",", sort(split(" ", "b a")))', "a,b"),
        ('sanitize("a.b/c")', "a_b_c"),
        ("range(1, 4)", [1, 2, 3]),
        ("merge({a = 1}, {b = 2})", {"a": 1, "b": 2}),
        ('sha256("a")', "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"),
        ("<<EOT\nhi ${V}\n  there\nEOT\n", "hi v\n  there\n"),
        ("<<-EOT\n    hi ${V}\n      there\n  EOT\n", "hi v\n  there\n"),
        ("B", "built"),
        ("null", None),
    ],
)
def test_expression_has_hcls_value(code: str, expected: object) -> None:
    assert value(code) == expected


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("nothing", "undefined variable 'nothing'"),
        ("nothing()", "undefined function nothing"),
        ('"a${null}"', "null"),
        ('1 + "a"', "not a number"),
        ("1 / 0", "division by zero"),
        ("[1][3]", "no element"),
        ('"%{ if true }x%{ endif }"', "template directives"),
        ("upper()", "function upper"),
        ('"${"', "cannot parse"),
    ],
)
def test_wrong_expression_is_an_error_that_says_why(code: str, message: str) -> None:
    with pytest.raises(BakeError, match=message):
        value(code)


@pytest.mark.parametrize("name", ["timestamp", "bcrypt", "cidrhost", "uuidv4"])
def test_function_that_lamina_lacks_is_refused_by_name(name: str) -> None:
    with pytest.raises(LaminaError, match=name) as caught:
        value(f'{name}("a")')
    assert caught.value.kind is Kind.UNSUPPORTED


def test_environment_overrides_a_variable_in_its_defaults_type() -> None:
    text = """
variable "TEXT" { default = "a" }
variable "FLAG" { default = false }
variable "COUNT" { default = 1 }
variable "LIST" {
  type = list(string)
  default = ["x"]
}
variable "NONE" {}
"""
    found = scope(text, TEXT="b", FLAG="true", COUNT="5", LIST="p, q")
    assert [found.variable(n) for n in ("TEXT", "FLAG", "COUNT", "LIST", "NONE")] == [
        "b",
        True,
        5,
        ["p", "q"],
        "",
    ]


@pytest.mark.parametrize(("name", "value"), [("FLAG", "maybe"), ("COUNT", "many")])
def test_override_of_the_wrong_type_is_an_error(name: str, value: str) -> None:
    text = 'variable "FLAG" { default = false }\nvariable "COUNT" { default = 1 }\n'
    with pytest.raises(BakeError, match=f"failed to parse {name}"):
        scope(text, **{name: value}).variable(name)


def test_variables_may_use_each_other_but_not_in_a_circle() -> None:
    text = 'variable "A" { default = "a${B2}" }\nvariable "B2" { default = "b" }\n'
    assert scope(text).variable("A") == "ab"
    with pytest.raises(BakeError, match="variable cycle not allowed"):
        scope("a = b\nb = a\n").variable("a")


def test_validation_that_does_not_hold_gives_its_message() -> None:
    text = """
variable "N" {
  default = 1
  validation {
    condition = N > 0
    error_message = "N must be positive"
  }
}
"""
    assert scope(text).variable("N") == 1
    with pytest.raises(BakeError, match="N must be positive"):
        scope(text, N="0").variable("N")


def test_functions_of_the_file_take_parameters_and_the_rest() -> None:
    text = """
function "pair" {
  params = [a]
  variadic_params = rest
  result = "${a}:${join("+", rest)}"
}
x = pair("a", "b", "c")
"""
    assert scope(text).variable("x") == "a:b+c"


def test_function_that_calls_itself_for_ever_is_an_error() -> None:
    text = 'function "f" {\n  params = [a]\n  result = f(a)\n}\nx = f(1)\n'
    with pytest.raises(BakeError):
        scope(text).variable("x")


def test_json_definition_has_templates_too() -> None:
    definition = parse_json(
        '{"variable": {"V": {"default": "v"}}, "x": ["${V}", 1, {"k": "$${V}"}]}', name="b.json"
    )
    found = Scope([definition], builtins={}, lookup=lambda name: None)
    assert found.variable("x") == ["v", 1, {"k": "${V}"}]


@pytest.mark.parametrize("text", ["{", "[]", '{"target": 1}', '{"target": {"a": 1}}'])
def test_broken_json_definition_is_an_error(text: str) -> None:
    with pytest.raises(BakeError, match=r"b\.json"):
        parse_json(text, name="b.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("target {", "docker-bake.hcl:"),
        ('strange "x" {}\n', "unsupported block type"),
        ('target "a" "b" {}\n', "invalid block label"),
        ('target "a" {\n x = 1\n x = 2\n}\n', "twice"),
        ('target "a" {\n inner {}\n}\n', "has a block"),
    ],
)
def test_broken_hcl_definition_is_an_error(text: str, message: str) -> None:
    with pytest.raises(BakeError, match=message):
        parse_hcl(text, name="docker-bake.hcl")
