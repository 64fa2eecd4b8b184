# SPDX-License-Identifier: Apache-2.0
"""How the arguments of an instruction are cut into flags, words, pairs and JSON arrays."""

from __future__ import annotations

from lamina.start.pattern import pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SPACE = pattern(r"[\t\v\f\r ]+")


class NotStrings(ValueError):
    """A JSON array that holds something other than strings."""


def split_flags(text: str, escape: str) -> tuple[list[tuple[str, int, int]], str, int]:
    """The leading `--...` words, (word without quotes, offset, width) each; then the rest and its
    offset. A lone `--` ends the flags.
    """
    flags: list[tuple[str, int, int]] = []
    at = 0
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if not text.startswith("--", at):
            return flags, text[at:].rstrip(), at
        start = at
        word: list[str] = []
        quote = ""
        while at < len(text) and (quote or not text[at].isspace()):
            char = text[at]
            at += 1
            if char == escape:
                word.append(text[at : at + 1])
                at += 1
            elif quote:
                if char == quote:
                    quote = ""
                else:
                    word.append(char)
            elif char in {"'", '"'}:
                quote = char
            else:
                word.append(char)
        found = "".join(word)
        if found == "--":
            return flags, text[at:].strip(), at + len(text[at:]) - len(text[at:].lstrip())
        flags.append((found, start, at - start))


def split_words(text: str, escape: str) -> list[str]:
    """Words with their quotes and escapes kept (they are processed when expanded)."""
    return list(_words(text, escape))


def _words(text: str, escape: str) -> Iterator[str]:
    word: list[str] = []
    quote = ""
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if not quote and char.isspace():
            if word:
                yield "".join(word)
                word = []
            continue
        if char == escape and quote != "'":
            if at == len(text):
                break  # an escape character at the end is dropped
            word += [char, text[at]]
            at += 1
            continue
        if char == quote:
            quote = ""
        elif not quote and char in {"'", '"'}:
            quote = char
        word.append(char)
    if word:
        yield "".join(word)


def parse_json(text: str) -> tuple[str, ...] | None:
    """The strings of a JSON array; None if the text is not a JSON array.

    Raises:
        NotStrings: an array with something that is not a string.
    """
    if not text.lstrip().startswith("["):
        return None
    from lamina.start.jsontext import loads

    try:
        found = loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(item, str) for item in found):
        raise NotStrings
    return tuple(found)


def _no_constant(name: str) -> object:
    raise ValueError(name)


def printable(text: str) -> str:
    """The text with U+FFFD for each byte that was not UTF-8: what a message or terminal can hold."""
    if text.isascii():
        return text
    return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)


def suggest(word: str, known: Iterator[str] | tuple[str, ...] | list[str]) -> str:
    """The known word nearest to `word`: one edit away, or two with the same first letter."""
    best, best_distance = "", 3
    folded = word.lower()
    if len(folded) > 64:
        return ""
    for candidate in known:
        if candidate == word:
            return ""
        distance = _distance(folded, candidate.lower())
        near = distance == 1 or folded[:1] == candidate[:1].lower()
        if near and distance < best_distance and distance < len(candidate):
            best, best_distance = candidate, distance
    return best


def _distance(one: str, other: str) -> int:
    """Levenshtein's distance."""
    if abs(len(one) - len(other)) > 3:
        return 4
    previous = list(range(len(other) + 1))
    for row, left in enumerate(one, start=1):
        current = [row]
        for column, right in enumerate(other, start=1):
            current.append(
                min(
                    previous[column] + 1,
                    current[column - 1] + 1,
                    previous[column - 1] + (left != right),
                )
            )
        previous = current
    return previous[-1]
