# SPDX-License-Identifier: Apache-2.0
"""What `Parser` reads without argparse is what argparse reads."""

from __future__ import annotations

import importlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.cli.arguments import Parser, _Unclear
from lamina.cli.main import COMMANDS
from lamina.errors import LaminaError

WORDS = ("", "-", "--", "x", "a b", "=", "-x", "1", "true", "false", "a=b", ".")


def parser_of(name: str) -> Parser:
    module = importlib.import_module(f"lamina.cli.{COMMANDS[name][0]}")
    parser = Parser(name, summary="", usage="")
    module.configure(parser)
    return parser


def lines(parser: Parser) -> st.SearchStrategy[list[str]]:
    """Command lines of the parser's options, in every form, between other words."""
    names = sorted(parser._options) or ["--none"]
    switches = [name[1] for name in names if len(name) == 2]
    option = st.sampled_from(names)
    value = st.sampled_from(WORDS)
    word = st.one_of(
        value,
        option,
        st.builds("{}={}".format, option, value),
        st.builds(
            "{}{}".format,
            st.sampled_from([name for name in names if len(name) == 2] or ["-x"]),
            value,
        ),
        st.builds("-{}".format, st.text(st.sampled_from(switches or ["x"]), max_size=3)),
    )
    return st.lists(word, max_size=7)


@pytest.mark.parametrize(
    "name", ["build", "run", "images", "ps", "rmi", "tag", "exec", "history", "cache export"]
)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_plain_lines_mean_what_argparse_says(name: str, data: st.DataObject) -> None:
    parser = parser_of(name)
    argv = data.draw(lines(parser))
    try:
        plain = parser._plain(argv)
    except _Unclear:
        return
    try:
        full = vars(parser._full().parse(argv))
    except LaminaError as error:
        pytest.fail(f"{argv}: argparse refuses: {error}")
    assert vars(plain) == full, argv


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("build", ["-t", "a", "--build-arg=X=1", "--no-cache", "--load=false", "."]),
        ("run", ["--rm", "-it", "-e", "-A=1", "--network=host", "busybox", "sh", "-c", "true"]),
        ("images", []),
        ("ps", ["-aq"]),
    ],
)
def test_usual_lines_need_no_argparse(name: str, argv: list[str]) -> None:
    parser = parser_of(name)
    assert vars(parser._plain(argv)) == vars(parser._full().parse(argv))
