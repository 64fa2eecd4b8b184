# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import time

import pytest

from lamina.dockerfile.expand import MAX_EXPANSION, BadExpansion, expand
from lamina.errors import Kind

ENV = {"V": "value", "E": "", "PATH": "/a/b.tar.gz", "STAR": "a*b?c\\d"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$V-${V}", "value-value"),
        ("$UNSET|${UNSET}", "|"),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("'$V'\"$V\"", "$Vvalue"),
        (r"\$V", "$V"),
        (r"a\b", "ab"),
        ('"a\\b\\"c\\$V"', 'a\\b"c$V'),
        ("${U:-x}${U-x}${E:-x}${E-x}", "xxx"),
        ("${V:+x}${V+x}${E:+x}${E+x}${U+x}", "xxx"),
        ("${V:?m}${E?m}", "value"),
        ("${U:-${E:-${V}}}", "value"),
        ("${U:-a b}", "a b"),
        ("${U:-'}'}", "}"),
        ("${PATH#*/}|${PATH##*/}|${PATH%.*}|${PATH%%.*}", "a/b.tar.gz|b.tar.gz|/a/b.tar|/a/b"),
        ("${V#x}${V%x}${V#}", "valuevaluevalue"),
        ("${V/a/A}${V//[/x}${V//?/-}", "vAluevalue-----"),
        ("${PATH//\\//-}", "-a-b.tar.gz"),
        ("${V/l*/L}", "vaL"),
        ("${STAR#a\\*}|${STAR#a\\*b\\?}|${STAR%\\\\d}", "b?c\\d|c\\d|a*b?c"),
        ("$1$12x$@", "x"),
        ("${V", None),
        ("${", None),
        ("${}", None),
        ("${:x}", None),
        ("${{V}", None),
        ("${V:}", None),
        ("${V^^}", None),
        ("${V:#v}", None),
        ("${U?}", None),
        ("${U:?gone}", None),
        ("${E:?empty}", None),
        ("${V/a}", None),
        ("${V#\\v}", None),
        ("'open", None),
        ('"open', None),
        ("${U:-" * 200, None),
    ],
)
def test_text_expands_as_in_buildkit(text: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(BadExpansion):
            expand(text, ENV)
    else:
        assert expand(text, ENV).text == expected


def test_message_of_a_required_variable_is_the_users() -> None:
    with pytest.raises(BadExpansion, match=r"^U: set it$"):
        expand("${U:?set it}", ENV)
    with pytest.raises(BadExpansion, match=r"^U: is not allowed to be unset$"):
        expand("${U?}", ENV)
    with pytest.raises(BadExpansion, match=r"^E: is not allowed to be empty$"):
        expand("${E:?}", ENV)


def test_words_split_at_spaces_outside_quotes_only() -> None:
    env = {"TWO": "a b"}
    assert expand("x  $TWO \"$TWO\" 'c  d' e\\ f", env).words == (
        "x",
        "a",
        "b",
        "a b",
        "c  d",
        "e f",
    )


def test_used_and_missing_variables_are_told_apart() -> None:
    found = expand("$V ${U} ${W:-default} ${X+y} ${Z#z}", ENV)
    assert found.used == ("V",)
    assert found.missing == ("U", "Z")


def test_raw_modes_keep_what_was_written() -> None:
    text = "\"$U\" '$V' \\x ${U:-w} ${U#p} ${U/a/b} $V"
    found = expand(text, ENV, raw_quotes=True, raw_escapes=True, keep_unset=True)
    assert found.text == "\"$U\" '$V' \\x ${U:-w} ${U#p} ${U/a/b} value"


def test_backtick_can_be_the_escape_character() -> None:
    assert expand("`$V c:\\d", ENV, escape="`").text == "$V c:\\d"


def test_growth_is_bounded() -> None:
    env = {"A": "x" * 1000}
    with pytest.raises(BadExpansion) as raised:
        expand("$A" * (MAX_EXPANSION // 1000 + 1), env)
    assert raised.value.kind is Kind.EXHAUSTED
    with pytest.raises(BadExpansion):
        expand("${A//x/" + "y" * 2000 + "}", env)


def test_no_pattern_is_slow() -> None:
    begin = time.perf_counter()
    pattern = "*a" * 200
    env = {"A": "a" * 20_000}
    assert expand("${A%%" + pattern + "b}", env).text == env["A"]
    assert expand("${A//" + pattern + "b/x}", env).text == env["A"]
    assert time.perf_counter() - begin < 5
