# SPDX-License-Identifier: Apache-2.0
"""Bake targets: inheritance, matrix, groups, merging, --set, links."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lamina.bake.definition import MAX_CHAIN, print_json, read_definition, resolve
from lamina.bake.values import BakeError


def bake(
    *files: tuple[str, str],
    names: tuple[str, ...] = (),
    sets: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
    dotenv: dict[str, str] | None = None,
    variables: dict[str, str] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    definition = read_definition(
        files, builtins={}, variables=variables or {}, env=env or {}, dotenv=dotenv or {}
    )
    return resolve(definition, names, sets, env=env or {})


def hcl(text: str) -> tuple[str, str]:
    return ("docker-bake.hcl", text)


BASE = """
target "base" {
  args = { A = "base", B = "base" }
  tags = ["base"]
  no-cache-filter = ["one"]
}
target "app" {
  inherits = ["base"]
  args = { B = "app", C = null }
  tags = ["app"]
  no-cache-filter = ["two"]
}
"""


def test_inherited_maps_merge_lists_replace_or_add_up() -> None:
    _, targets = bake(hcl(BASE), names=("app",))
    assert targets["app"] == {
        "args": {"A": "base", "B": "app"},
        "tags": ["app"],
        "no-cache-filter": ["one", "two"],
        "context": ".",
        "dockerfile": "Dockerfile",
    }


def test_target_set_in_two_files_merges() -> None:
    second = ("override.hcl", 'target "app" {\n args = { D = "d" }\n tags = ["late"]\n}\n')
    _, targets = bake(hcl(BASE), second, names=("app",))
    assert targets["app"]["args"] == {"A": "base", "B": "app", "D": "d"}
    assert targets["app"]["tags"] == ["late"]


def test_matrix_makes_a_target_for_every_combination_and_a_group() -> None:
    text = """
target "m" {
  matrix = { a = ["x", "y"], b = [1, 2] }
  name = "m-${a}-${b}"
  args = { B = b }
}
"""
    groups, targets = bake(hcl(text), names=("m",))
    assert sorted(targets) == ["m-x-1", "m-x-2", "m-y-1", "m-y-2"]
    assert targets["m-y-2"]["args"] == {"B": "2"}
    assert groups["m"]["targets"] == ["m-x-1", "m-y-1", "m-x-2", "m-y-2"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('name = "x"', "name requires matrix"),
        ("matrix = [1]", "matrix must be a map"),
        ('matrix = { a = 1 }\n name = "x"', "matrix values must be a list"),
        ("unknown = 1", "unsupported argument 'unknown'"),
        ("tags = 1", "tags is not a list"),
        ('pull = "yes"', "pull is not a boolean"),
    ],
)
def test_wrong_field_is_an_error_that_names_it(body: str, message: str) -> None:
    with pytest.raises(BakeError, match=message):
        bake(hcl(f'target "t" {{\n {body}\n}}\n'), names=("t",))


def test_groups_nest_and_default_is_what_nothing_names() -> None:
    text = """
group "default" { targets = ["inner", "c"] }
group "inner" { targets = ["a", "b"] }
target "a" {}
target "b" {}
target "c" {}
"""
    groups, targets = bake(hcl(text))
    assert sorted(targets) == ["a", "b", "c"]
    assert sorted(groups) == ["default", "inner"]
    groups, targets = bake(hcl(text), names=("c", "a*"))
    assert sorted(targets) == ["a", "c"]
    assert groups["default"]["targets"] == ["a", "c"]


@pytest.mark.parametrize(("name", "message"), [("nope", "failed to find target"), ("n*", "match")])
def test_unknown_target_is_an_error(name: str, message: str) -> None:
    with pytest.raises(BakeError, match=message):
        bake(hcl(BASE), names=(name,))


def test_set_overrides_fields_of_matching_targets() -> None:
    sets = (
        "*.args.A=set",
        "app.tags=one",
        "app.tags=two",
        "app.no-cache-filter+=three",
        "app.no-cache=true",
        "app.context=dir",
        "app.args.FROM_ENV",
        "app.args.NOT_SET",
        "app.output=type=oci,dest=x.tar",
        "app.platform=linux/arm64",
    )
    _, targets = bake(hcl(BASE), names=("app",), sets=sets, env={"FROM_ENV": "e"})
    assert targets["app"] == {
        "args": {"A": "set", "B": "app", "FROM_ENV": "e"},
        "tags": ["one", "two"],
        "no-cache-filter": ["one", "two", "three"],
        "no-cache": True,
        "context": "dir",
        "dockerfile": "Dockerfile",
        "output": [{"dest": "x.tar", "type": "oci"}],
        "platforms": ["linux/arm64"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tags=x", "expected target.name"),
        ("app.tags", "expected target.name=value"),
        ("zzz.tags=x", "could not find any target"),
        ("app.nothing=x", "unknown key: nothing"),
        ("app.no-cache=perhaps", "boolean"),
        ("app.args=x", "requires name"),
    ],
)
def test_wrong_override_is_an_error(text: str, message: str) -> None:
    with pytest.raises(BakeError, match=message):
        bake(hcl(BASE), names=("app",), sets=(text,))


def test_linked_target_is_built_but_not_exported() -> None:
    text = """
target "app" { contexts = { base = "target:lib" } }
target "lib" { tags = ["lib"] }
"""
    _, targets = bake(hcl(text), names=("app",))
    assert targets["lib"]["output"] == [{"type": "cacheonly"}]
    with pytest.raises(BakeError, match="cannot link to itself"):
        bake(hcl('target "a" { contexts = { x = "target:a" } }\n'), names=("a",))
    circle = (
        'target "a" { contexts = { x = "target:b" } }\n'
        'target "b" { contexts = { x = "target:a" } }\n'
    )
    with pytest.raises(BakeError, match="infinite loop"):
        bake(hcl(circle), names=("a",))


COMPOSE = """
services:
  web:
    image: ${REGISTRY:-example}/web:${TAG?no tag}
    build:
      context: ./web
      dockerfile: web.Dockerfile
      target: final
      args:
        - A=1
        - FROM_ENV
      labels: {l: "1"}
      x-bake:
        tags: [extra]
        no-cache: true
  api.v1:
    build: ./api
    image: api
  db:
    image: postgres
"""


def test_compose_services_with_a_build_are_targets() -> None:
    groups, targets = bake(
        ("compose.yaml", COMPOSE), env={"TAG": "t"}, dotenv={"FROM_ENV": "e", "TAG": "no"}
    )
    assert groups["default"]["targets"] == ["api_v1", "web"]
    assert targets["web"] == {
        "context": "web",
        "dockerfile": "web.Dockerfile",
        "target": "final",
        "args": {"A": "1", "FROM_ENV": "e"},
        "labels": {"l": "1"},
        "tags": ["extra"],
        "no-cache": True,
    }
    assert targets["api_v1"]["tags"] == ["api"]


def test_hcl_file_overrides_a_compose_service() -> None:
    _, targets = bake(
        ("compose.yaml", COMPOSE),
        hcl('target "web" {\n args = { A = "2" }\n}\n'),
        env={"TAG": "t"},
        names=("web",),
    )
    assert targets["web"]["args"]["A"] == "2"


def test_second_compose_file_merges_into_the_first() -> None:
    second = "services:\n  web:\n    build:\n      args: {A: two, B: b}\n"
    _, targets = bake(
        ("compose.yaml", COMPOSE), ("extra.yml", second), env={"TAG": "t"}, names=("web",)
    )
    assert targets["web"]["args"] == {"A": "two", "B": "b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("services: [1]", "services is not a mapping"),
        ("services:\n  a:\n    extends: b\n", "extends is not supported"),
        ("include: [x]\nservices: {}\n", "include is not supported"),
        ("services:\n  a:\n    build: {strange: 1}\n", "unknown key 'strange'"),
        ("services:\n  a:\n    build: {privileged: true}\n", "privileged is not supported"),
        ("services:\n  a:\n    image: ${X?needed}\n", "required variable X"),
        ("a: [", "cannot parse YAML"),
    ],
)
def test_compose_file_that_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        bake(("compose.yaml", text), names=("a",))


def test_printed_definition_reads_back_as_the_same() -> None:
    text = """
target "t" {
  args = { A = "$${HOME} <&>" }
  dockerfile-inline = "FROM scratch\\nENV X=$${Y}"
  output = ["type=local,dest=out"]
  secret = ["id=s,src=file", { id = "e", env = "E" }]
  cache-from = ["user/app:cache"]
}
"""
    printed = print_json(*bake(hcl(text), names=("t",)))
    again = print_json(*bake(("docker-bake.json", printed), names=("t",)))
    assert again == printed
    document = json.loads(printed)
    assert document["target"]["t"]["cache-from"] == [{"ref": "user/app:cache", "type": "registry"}]
    assert "\\u003c\\u0026\\u003e" in printed


CHAINS = {
    "inherited targets": 'target "t{}" {{\n  inherits = ["t{}"]\n}}\n',
    "linked targets": 'target "t{}" {{\n  contexts = {{ below = "target:t{}" }}\n}}\n',
    "groups": 'group "t{}" {{\n  targets = ["t{}"]\n}}\n',
}


@pytest.mark.parametrize("kind", CHAINS)
def test_chains_have_an_end(kind: str) -> None:
    def chain(length: int) -> tuple[str, str]:
        links = [CHAINS[kind].format(number, number + 1) for number in range(length)]
        return hcl("".join([*links, f'target "t{length}" {{}}\n']))

    assert bake(chain(MAX_CHAIN - 1), names=("t0",))[1]
    for length in (MAX_CHAIN + 1, 2000):
        with pytest.raises(BakeError, match=f"more than {MAX_CHAIN} {kind}"):
            bake(chain(length), names=("t0",))
