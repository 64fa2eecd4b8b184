# SPDX-License-Identifier: Apache-2.0
"""Properties of the Dockerfile room over generated input."""

from __future__ import annotations

import contextlib
import re
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.dockerfile import ast
from lamina.dockerfile.expand import BadExpansion, expand
from lamina.dockerfile.ignore import IgnoreMatcher, InvalidPattern, parse_ignore
from lamina.dockerfile.lower import Lowering, LowerOptions, ResolvedImage
from lamina.dockerfile.lowered import Lowered
from lamina.dockerfile.operands import clean
from lamina.dockerfile.parser import parse
from lamina.dockerfile.remotes import Answer, GitAnswer, GitRequest, UrlAnswer, UrlRequest
from lamina.errors import LaminaError, SourceError
from lamina.plan.dump import dump_plan
from lamina.spec.config import ImageConfig, RunConfig
from lamina.spec.digest import DiffID, Digest
from lamina.spec.platform import Platform

OPTIONS = LowerOptions(platform=Platform("linux", "amd64"), build_args=(("A", "$B"),))
BASE = ImageConfig("amd64", "linux", (DiffID(Digest.of(b"x")),), RunConfig(on_build=("RUN $A",)))
FRAGMENTS = [
    "FROM alpine\n",
    "FROM a AS b\n",
    "ARG A=1\n",
    "RUN ",
    "COPY --from=b ",
    "COPY --chown=$A ",
    "ADD ",
    "ENV ",
    "ONBUILD ",
    "HEALTHCHECK --interval=1s CMD ",
    "EXPOSE ",
    "WORKDIR ",
    "SHELL ",
    "# escape=`\n",
    "# check=error=true\n",
    "<<EOF\n",
    "EOF\n",
    "\\\n",
    "`\n",
    "\r\n",
    "\n",
    " ",
    '["a", "b"]',
    '"',
    "'",
    "\\",
    "$A",
    "${A:-b}",
    "${A/x/y}",
    "${",
    "=",
    "a=b",
    "80",
    "/x",
    "--",
    "#",
    "\x00",
    "\u2028",
    "é",
]


def build(data: bytes) -> None:
    """Parse and lower; whatever comes out must print, serialise and encode."""
    lowering = Lowering(parse(data), OPTIONS)
    resolved: dict[tuple[str, str], ResolvedImage] = {}
    answers: dict[tuple[str, str], Answer] = {}
    while not isinstance(found := lowering.step(resolved, answers), Lowered):
        for request in found.requests:
            if isinstance(request, UrlRequest):
                answers[request.key] = UrlAnswer(Digest.of(b"u"), 0)
            elif isinstance(request, GitRequest):
                answers[request.key] = GitAnswer("a" * 40, "refs/heads/main")
            else:
                resolved[request.key] = ResolvedImage(request.reference, Digest.of(b"m"), BASE)
    found.config.serialise()
    dump_plan(found.plan).encode()
    for diagnostic in found.diagnostics:
        str(diagnostic.message).encode()


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_raise_nothing_but_source_errors(data: bytes) -> None:
    try:
        build(data)
    except LaminaError as error:
        str(error).encode()  # what is shown can be written to a terminal


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=25), st.binary(max_size=3))
@settings(max_examples=600, deadline=None)
def test_arbitrary_fragments_raise_nothing_but_lamina_errors(parts: list[str], tail: bytes) -> None:
    try:
        build(b"FROM alpine\n" + "".join(parts).encode() + tail)
    except LaminaError as error:
        str(error).encode()
        spanless = isinstance(error, SourceError) and error.span is None
    else:
        spanless = False
    assert not spanless


WORD = st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r", exclude_categories=["Cs"]))


@given(st.lists(WORD, min_size=1, max_size=4))
@settings(deadline=None)
def test_exec_form_parses_back_to_the_same_words(words: list[str]) -> None:
    import json

    text = "FROM x\nRUN " + json.dumps(words, ensure_ascii=False) + "\n"
    (command,) = parse(text.encode()).stages[0].commands
    assert isinstance(command, ast.Run)
    assert command.command == ast.CommandLine(tuple(words), shell=False)


KEYS = st.from_regex(re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,8}", re.ASCII), fullmatch=True)


@given(st.lists(st.tuples(KEYS, WORD), min_size=1, max_size=4))
@settings(deadline=None)
def test_quoted_values_expand_to_themselves(pairs: list[tuple[str, str]]) -> None:
    quoted = " ".join(f"{name}={_quote(value)}" for name, value in pairs)
    (command,) = parse(f"FROM x\nENV {quoted}\n".encode()).stages[0].commands
    assert isinstance(command, ast.Env)
    assert [(p.name, expand(p.value, {}).text) for p in command.pairs] == pairs


def _quote(value: str) -> str:
    return '"' + re.sub(r'([\\"$])', r"\\\1", value) + '"'


VALUES = st.text("ab.:/ -", max_size=5)
SIMPLE_WORD = st.text("abx./", max_size=3)
PATTERN = st.text("ab.*?x", min_size=1, max_size=4)
OPERATORS = st.sampled_from([":-", "-", ":+", "+"])
TRIMS = st.sampled_from(["#", "##", "%", "%%"])
PIECES = st.one_of(
    st.just("$V"),
    st.just("${V}"),
    st.just("${U}"),
    st.tuples(st.sampled_from("VUE"), OPERATORS, SIMPLE_WORD).map(
        lambda t: "${" + "".join(t) + "}"
    ),
    st.tuples(st.sampled_from("VE"), TRIMS, PATTERN).map(lambda t: "${" + "".join(t) + "}"),
    st.text("ab./", min_size=1, max_size=3),
    st.just("\\$V"),
    st.just("'$V'"),
    st.just('"\'"'),
)


@given(st.lists(st.lists(PIECES, min_size=1, max_size=4), min_size=40, max_size=40), VALUES)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_posix_subset_expands_as_sh_does(words: list[list[str]], value: str) -> None:
    texts = ["".join(pieces) for pieces in words]
    # an assignment is neither split nor globbed, as in a Dockerfile
    script = "".join(f"X={text}\nprintf '%s\\n' \"$X\"\n" for text in texts)
    done = subprocess.run(
        ["sh", "-c", f"unset U\n{script}"],
        env={"V": value, "E": "", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        check=True,
        text=True,
    )
    ours = [expand(text, {"V": value, "E": ""}).text for text in texts]
    assert ours == done.stdout.split("\n")[:-1]


@given(st.text(max_size=60))
@settings(deadline=None)
def test_expansion_raises_nothing_else(text: str) -> None:
    with contextlib.suppress(BadExpansion):
        expand(text, {"A": "x"})


NAMES = st.text("ab.", min_size=1, max_size=3).filter(lambda name: set(name) != {"."})
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
GLOBS = st.lists(st.text("ab.*?", min_size=1, max_size=4), min_size=1, max_size=4).map("/".join)


@given(st.lists(st.tuples(st.booleans(), GLOBS), max_size=5), PATHS)
@settings(max_examples=400, deadline=None)
def test_ignoring_equals_the_rule_written_plainly(lines: list[tuple[bool, str]], path: str) -> None:
    patterns = parse_ignore("".join(f"{'!' * negated}{glob}\n" for negated, glob in lines))
    try:
        matcher = IgnoreMatcher(patterns)
    except InvalidPattern:
        return
    parts = path.split("/")
    parents = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    expected = False
    for pattern in patterns:
        plain = _reference(pattern.removeprefix("!"))
        if any(plain.fullmatch(parent) for parent in parents):
            expected = not pattern.startswith("!")
    assert matcher.excludes(path) is expected


def _reference(pattern: str) -> re.Pattern[str]:
    """The translation of moby's source in its simplest form (slow on hostile patterns)."""
    pattern = clean(pattern)
    if pattern.startswith("**") and not re.search(r"[*?]", pattern[2:]):
        rest = pattern[2:]
        if rest.startswith("/"):
            return re.compile(f"(?:.*{re.escape(rest)}|{re.escape(rest[1:])})", re.DOTALL)
        return re.compile(f".*{re.escape(rest)}", re.DOTALL)
    out = ""
    at = 0
    while at < len(pattern):
        if pattern.startswith("**", at):
            at += 3 if pattern.startswith("**/", at) else 2
            out += ".*" if at >= len(pattern) else "(?:.*/)?"
        else:
            out += {"*": "[^/]*", "?": "[^/]"}.get(pattern[at], re.escape(pattern[at]))
            at += 1
    return re.compile(out, re.DOTALL)


@given(st.lists(st.tuples(st.booleans(), GLOBS), max_size=4), PATHS, PATHS)
@settings(deadline=None)
def test_walk_may_skip_what_it_is_told_to_skip(
    lines: list[tuple[bool, str]], directory: str, below: str
) -> None:
    patterns = parse_ignore("".join(f"{'!' * negated}{glob}\n" for negated, glob in lines))
    try:
        matcher = IgnoreMatcher(patterns)
    except InvalidPattern:
        return
    if matcher.excludes(directory) and not matcher.may_include_below(directory):
        assert matcher.excludes(f"{directory}/{below}")


@pytest.mark.parametrize("text", ["!", "[", "a\\"])
def test_bad_ignore_lines_are_lamina_errors(text: str) -> None:
    with pytest.raises(InvalidPattern):
        IgnoreMatcher(parse_ignore(text))
