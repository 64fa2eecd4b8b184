# SPDX-License-Identifier: Apache-2.0
"""Every flag of every command takes every value, in every way that Docker writes it."""

from __future__ import annotations

import importlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.cli.arguments import Argument, HelpWanted, Parser
from lamina.cli.main import COMMANDS
from lamina.errors import Kind, LaminaError

WORDS = (
    "",
    "-",
    "--",
    "-1",
    "-500",
    "x",
    "a b",
    "=",
    "=x",
    "-x",
    "--help",
    "1",
    "true",
    "a=b",
    ".",
)


def parser_of(name: str) -> Parser:
    module = importlib.import_module(f"lamina.cli.{COMMANDS[name][0]}")
    parser = Parser(name, summary="", usage="")
    module.configure(parser)
    return parser


def options(parser: Parser) -> list[Argument]:
    return [each for each in parser.declared if each.names[0].startswith("-")]


def positionals(parser: Parser) -> list[str]:
    """As many words as the command needs."""
    rest = [each for each in parser.declared if not each.names[0].startswith("-")]
    return [each.choices[0] if each.choices else "word" for each in rest]


def required(parser: Parser) -> list[str]:
    return [word for each in options(parser) if each.required for word in (each.names[-1], "x")]


def spellings(option: Argument, value: str) -> list[list[str]]:
    found: list[list[str]] = []
    for name in option.names:
        found.append([name, value])
        if name.startswith("--"):
            found.append([f"{name}={value}"])
        elif value:
            found.append([f"{name}={value}"])
            if not (value.startswith("=") and len(value) > 1):  # `-e=x` is the value x
                found.append([name + value])
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_flags_that_take_text_take_any_in_every_spelling(name: str) -> None:
    parser = parser_of(name)
    rest = positionals(parser)
    for option in options(parser):
        if option.action not in {"store", "append"} or option.choices or option.type:
            continue
        for value in WORDS:
            for words in spellings(option, value):
                # a parser keeps nothing of an earlier line
                line = [*required(parser), *words, *rest]
                found = getattr(parser.parse(line), option.dest)
                assert (found[-1] if option.action == "append" else found) == value, line


@pytest.mark.parametrize("name", COMMANDS)
def test_flags_that_take_numbers_take_negative_ones(name: str) -> None:
    parser = parser_of(name)
    for option in options(parser):
        if option.type is not None:
            for words in spellings(option, "-1"):
                line = [*required(parser), *words, *positionals(parser)]
                assert getattr(parser.parse(line), option.dest) == -1


@pytest.mark.parametrize("name", COMMANDS)
def test_refused_flags_are_refused_whatever_follows(name: str) -> None:
    parser = parser_of(name)
    for option in options(parser):
        if option.action == "refuse":
            for flag in option.names:
                for words in ([flag, "-1"], [f"{flag}=-1"], [flag]):
                    with pytest.raises(LaminaError) as caught:
                        parser.parse([*words, *positionals(parser)])
                    assert caught.value.kind is Kind.UNSUPPORTED
                    assert str(caught.value) == f"{flag} is not supported: {option.why}"


@pytest.mark.parametrize("name", COMMANDS)
def test_only_the_last_positional_is_open(name: str) -> None:
    """What the parser gives words to in order; another declaration would not be understood."""
    places = [each.nargs for each in parser_of(name).declared if not each.names[0].startswith("-")]
    assert all(nargs is None for nargs in places[:-1])


@pytest.mark.parametrize(
    "name", ["build", "run", "images", "ps", "rmi", "tag", "exec", "history", "cache export"]
)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_line_is_parsed_or_refused(name: str, data: st.DataObject) -> None:
    parser = parser_of(name)
    names = [flag for option in options(parser) for flag in option.names]
    word = st.one_of(
        st.sampled_from(WORDS),
        st.sampled_from(names or ["--none"]),
        st.builds("{}={}".format, st.sampled_from(names or ["--none"]), st.sampled_from(WORDS)),
        st.builds("-{}".format, st.text(max_size=3)),
    )
    argv = data.draw(st.lists(word, max_size=7))
    outcome: object = None
    try:
        parser.parse(argv)
    except LaminaError as error:
        outcome = error.kind
    except HelpWanted:
        outcome = any("h" in word for word in argv)
    assert outcome in {None, True, Kind.USAGE, Kind.UNSUPPORTED}
