# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from lamina.solver import explain as reasons
from lamina.solver.explain import Cause, Explanation, explain, file_causes, nearest
from lamina.solver.keytree import KeyTree, annotated


def tree(
    key: str, name: str, op: dict[str, object], *, base: object = None, **rest: object
) -> KeyTree:
    document = {"version": 1, "op": op, "base": base or {"chain": "b"}, "sources": []}
    images = rest.pop("images", {})
    text = annotated(
        json.dumps({**document, **rest}, separators=(",", ":")),
        site="/site",
        images=images,  # type: ignore[arg-type]  # tests give what they like
        merges={},
        files=(),
        arguments=(),
    )
    return KeyTree(key, name, text)


def run(argv: str, **more: object) -> dict[str, object]:
    return {"type": "Exec", "argv": ["/bin/sh", "-c", argv], "env": [], **more}


def test_platform_of_the_base_is_the_cause() -> None:
    old = tree(
        "1", "[1/1] RUN x", run("x"), base={"chain": "b"}, images={"b": ["i", "m1", "linux/amd64"]}
    )
    new = tree(
        "2", "[1/1] RUN x", run("x"), base={"chain": "c"}, images={"c": ["i", "m2", "linux/arm64"]}
    )
    found = explain(new, old, lambda _: None)
    assert found == Explanation(Cause(reasons.PLATFORM, "i", "linux/amd64", "linux/arm64"))


def test_cause_below_is_found_through_the_line() -> None:
    first, second = tree("a1", "[1/2] RUN a", run("a")), tree("a2", "[1/2] RUN b", run("b"))
    known = {"a1": first, "a2": second}
    old = tree("b1", "[2/2] RUN x", run("x"), base={"definition": "a1"})
    new = tree("b2", "[2/2] RUN x", run("x"), base={"definition": "a2"})
    found = explain(new, old, known.get)
    assert found == Explanation(
        Cause(reasons.INSTRUCTION, "RUN b", "RUN a", "RUN b"), "[1/2] RUN b"
    )


def test_unknown_input_is_said_to_be_unknown() -> None:
    old = tree("b1", "[2/2] RUN x", run("x"), base={"definition": "gone"})
    new = tree("b2", "[2/2] RUN x", run("x"), base={"definition": "new"})
    assert explain(new, old, lambda _: None).cause.kind == reasons.INPUT


def test_another_cache_format_is_said() -> None:
    old, new = tree("1", "n", run("x")), tree("2", "n", run("x"), version=2)
    assert explain(new, old, lambda _: None).cause.kind == reasons.FORMAT


def test_owner_attributes_and_renames_of_files() -> None:
    row = "file 0644 0:0 abc"
    assert file_causes({"a": row}, {"a": "file 0644 1:0 abc"})[0].kind == reasons.FILE_OWNER
    assert file_causes({"a": row}, {"b": row})[0].kind == reasons.FILE_RENAMED
    folder = "dir 0755 - -"
    changed = file_causes({"a": folder}, {"a": "dir 0755 - attributes ab"})
    assert changed[0].kind in {reasons.FILE_ATTRIBUTES, reasons.FILES}
    both = file_causes({"a": row}, {"a": "file 0755 0:0 abd"})[0]
    assert (both.kind, both.more) == (reasons.FILE_CONTENT, 1)


def test_nearest_prefers_the_same_site_then_fewest_differences() -> None:
    new = tree("n", "[1/1] RUN x", run("x", user="a", cwd="/b"))
    near = tree("1", "[1/1] RUN x", run("x", user="z", cwd="/b"))
    far = tree("2", "[1/1] RUN x", run("x", user="z", cwd="/z"))
    found = nearest(new, [far, near], site="/site", follows="", present=frozenset())
    assert found is near
    assert nearest(new, [], site="", follows="", present=frozenset()) is None


def test_damaged_trees_are_no_error() -> None:
    broken = KeyTree("1", "[1/1] RUN x", '{"op": ')
    assert broken.document == {}
    assert broken.files() == []
    assert explain(tree("2", "[1/1] RUN x", run("x")), broken, lambda _: None).cause.kind


@pytest.mark.parametrize(
    "text",
    [
        '{"op":{"type":"Exec","argv":7}}',
        '{"op":{"type":"Exec","env":[3]}}',
        '{"op":{"type":"Exec","env":[["A",1]]}}',
        '{"op":{"type":"Exec","mounts":[1]}}',
        '{"op":{"type":"FileOp","actions":7}}',
        '{"op":{"type":"FileOp","actions":[{"patterns":1}]}}',
        '{"op":[],"sources":[]}',
        '{"op":{"type":"Exec"},"sources":5}',
        '{"op":{"type":"Exec","argv":["x"]},"about":{"images":4}}',
        '{"op":{"type":"Exec","argv":["x"]},"about":{"images":{"b":["i"]}}}',
        '{"op":{"type":"Exec","argv":["x"]},"about":{"args":3}}',
        '{"op":{"type":"Exec","argv":["x"]},"about":{"merges":5}}',
        '{"op":{"type":"Exec","argv":["x"]},"about":{},"files":4}',
        '{"op":{"type":"Exec","argv":["x"]},"about":{},"files":[{"a":1}]}',
        '{"op":{"type":"Exec","argv":["x"]},"about":{},"files":' + "[" * 100_000 + "}",
    ],
)
def test_trees_of_another_form_are_no_error(text: str) -> None:
    strange = KeyTree("1", "[1/1] RUN x", text)
    copy: dict[str, object] = {"type": "FileOp", "actions": [{"patterns": ["a"], "dest": "/"}]}
    for op in (run("x"), copy):
        new = tree("2", "[1/1] RUN x", op, sources=[{"content": "c"}])
        assert explain(new, strange, lambda _: None).cause.kind
        assert explain(strange, new, lambda _: None).cause.kind
        nearest(new, [strange], site="", follows="", present=frozenset())


def test_every_kind_has_words() -> None:
    for kind in reasons._WORDS:
        assert reasons.sentence(Explanation(Cause(kind, "s", "o", "n", 2), "[1/1] RUN x"))
