# SPDX-License-Identifier: Apache-2.0
"""`.dockerignore` patterns and COPY wildcards, as moby/patternmatcher and Go's filepath.Match.

Each pattern becomes one regular expression for a path or one of its parents; a run of plain
patterns between two negations is tried as one expression, so a path costs a few matches.
"""

from __future__ import annotations

from lamina.dockerfile.operands import clean
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Iterable

MAX_PATTERNS = 10_000
_MAX_STARS = 8  # of a kind that may cost a factor of the path's length each


class InvalidPattern(LaminaError):
    kind = Kind.INVALID


def parse_ignore(text: str) -> tuple[str, ...]:
    """The patterns of a `.dockerignore`, in order, cleaned as moby's `ignorefile.ReadAll` does."""
    patterns = []
    for number, raw in enumerate(text.split("\n")):
        line = raw.removeprefix("\ufeff") if number == 0 else raw
        if line.startswith("#"):
            continue
        pattern = line.strip()
        if not pattern:
            continue
        negated = pattern.startswith("!")
        if negated:
            pattern = pattern[1:].strip()
        if pattern:
            pattern = clean(pattern)
            if len(pattern) > 1 and pattern.startswith("/"):
                pattern = pattern[1:]
        patterns.append("!" * negated + pattern)
    return tuple(patterns)


class IgnoreMatcher:
    """Whether paths are excluded by patterns: the last one that matches a path or a parent wins.

    Paths are relative to the context, with slashes, without a trailing one.

    Raises:
        InvalidPattern: an unclosed bracket, a bad range, `!` alone, too many patterns.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        parsed = [found for found in map(_parse, patterns) if found is not None]
        if len(parsed) > MAX_PATTERNS:
            raise InvalidPattern(f"more than {MAX_PATTERNS} ignore patterns")
        self._runs = _runs(parsed)
        self._negated = [pattern for negated, pattern in parsed if negated]
        self.has_exclusions = bool(self._negated)
        self._reaches = [_reach(pattern) for pattern in self._negated]

    def excludes(self, path: str) -> bool:
        """Whether `path` is left out of the context."""
        for negated, match in self._runs:
            if match(path) is not None:
                return not negated
        return False

    def may_include_below(self, directory: str) -> bool:
        """Whether something below an excluded `directory` may be included by a negation.

        False is certain: a walk need not enter the directory.
        """
        if not self._negated:
            return False
        parts = directory.split("/")
        return any(_overlaps(parts, reach) for reach in self._reaches)


def match_path(pattern: str, path: str) -> bool:
    r"""Whether the whole `path` matches: `*`, `?`, `[a-z]`, `\x` within a part, `**` across.

    Raises:
        InvalidPattern: a malformed pattern.
    """
    return _whole(pattern).match(path) is not None


def has_wildcards(pattern: str) -> bool:
    """Whether the pattern has `*`, `?` or `[` that is not escaped."""
    escaped = False
    for char in pattern:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char in "*?[":
            return True
    return False


_compiled: dict[str, re.Pattern[str]] = {}
_CACHE_SIZE = 512


def _whole(pattern: str) -> re.Pattern[str]:
    found = _compiled.get(pattern)
    if found is None:
        if len(_compiled) >= _CACHE_SIZE:
            _compiled.clear()
        found = _compiled[pattern] = _compile(_translate(pattern) + r"\Z", pattern)
    return found


def _compile(expression: str, pattern: str) -> re.Pattern[str]:
    import re

    try:
        return re.compile(expression, re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidPattern(f"invalid pattern {pattern!r}") from error


def _parse(text: str) -> tuple[bool, str] | None:
    """(negated, pattern) of a line; None for an empty one."""
    pattern = text.strip()
    if not pattern:
        return None
    pattern = clean(pattern)
    negated = pattern.startswith("!")
    if negated:
        pattern = pattern[1:]
        if not pattern:
            raise InvalidPattern('illegal exclusion pattern: "!"')
    return negated, pattern


def _runs(parsed: list[tuple[bool, str]]) -> list[tuple[bool, _Match]]:
    """Neighbours of one sign as one expression, last run first."""
    if not parsed:
        return []
    import re  # only contexts with a .dockerignore pay for it

    runs: list[tuple[bool, list[str]]] = []
    for negated, pattern in parsed:
        expression = f"(?:{_translate(pattern)})"
        _compile(expression, pattern)
        if runs and runs[-1][0] == negated:
            runs[-1][1].append(expression)
        else:
            runs.append((negated, [expression]))
    result: list[tuple[bool, _Match]] = []
    for negated, expressions in reversed(runs):
        # `/.*` after it: a parent of the path may match instead
        whole = f"(?:{'|'.join(expressions)})(?:/.*)?\\Z"
        result.append((negated, re.compile(whole, re.DOTALL).match))
    return result


_ANY = "*"
_ANY_PATH = "**"


def _translate(pattern: str) -> str:
    """The regular expression of one pattern: what moby's `Pattern.compile` would match.

    Go's expressions run in linear time, Python's do not. So every gap but the last is atomic: the
    leftmost place for the text after a `*` (within a part) or a `**/` (in whole parts) is always
    good enough, and trying the later ones is what would take for ever.
    """
    tokens = _tokens(pattern)
    if tokens.count(_ANY_PATH) > _MAX_STARS:
        raise InvalidPattern(f"invalid pattern {pattern!r}: more than {_MAX_STARS} `**`")
    segments: list[list[str]] = [[]]
    for char in tokens:
        if char == _ANY_PATH:
            segments.append([])
        else:
            segments[-1].append(char)
    out = [_segment(segments[0], pattern)]
    for index, segment in enumerate(segments[1:], start=1):
        text = _segment(segment, pattern)
        if index == len(segments) - 1:
            out.append(_last_gap(pattern, tokens, text))
        elif segment and segment[-1] == "/":
            out.append(f"(?>(?:.*?/)??{text})")
        else:
            out.append(f"(?:.*/)?{text}")
    return "".join(out)


def _last_gap(pattern: str, tokens: list[str], text: str) -> str:
    if not text:
        return ".*"
    # moby tests `**name` with no other wildcard by its suffix alone: `**foo` matches `barfoo`
    rest = pattern[2:]
    is_suffix = tokens[0] == _ANY_PATH and not rest.startswith("/")
    if is_suffix and not any(char in rest for char in "*?[]\\"):
        return ".*" + text
    return f"(?:.*/)?{text}"


def _tokens(pattern: str) -> list[str]:
    """`*`, `**` (with the slash after it; neighbours merged), or an expression of one character."""
    import re

    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*" and pattern[at : at + 1] == "*":
            at += 1
            at += pattern[at : at + 1] == "/"
            if not out or out[-1] != _ANY_PATH:
                out.append(_ANY_PATH)
        elif char == "*":
            out.append(_ANY)
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            at = _bracket(pattern, at, out)
        elif char == "\\":
            if at == len(pattern):
                raise InvalidPattern(f"invalid pattern {pattern!r}: ends in a backslash")
            out.append(re.escape(pattern[at]))
            at += 1
        else:
            out.append("/" if char == "/" else re.escape(char))
    return out


def _segment(tokens: list[str], pattern: str) -> str:
    """The expression of tokens without `**`."""
    parts: list[list[str]] = [[]]
    for char in tokens:
        if char == "/":
            parts.append([])
        else:
            parts[-1].append(char)
    return "/".join(_part(part, pattern) for part in parts)


def _part(tokens: list[str], pattern: str) -> str:
    pieces: list[list[str]] = [[]]
    for char in tokens:
        if char == _ANY:
            pieces.append([])
        else:
            pieces[-1].append(char)
    # a bracket may match a slash (it may in Go): then "leftmost is good enough" does not hold
    atomic = not any(char.startswith(("[", "(")) and char != "[^/]" for char in tokens)
    if not atomic and len(pieces) - 1 > _MAX_STARS:
        raise InvalidPattern(f"invalid pattern {pattern!r}: more than {_MAX_STARS} wildcards")
    out = ["".join(pieces[0])]
    for piece in pieces[1:-1]:
        text = "".join(piece)
        out.append(f"(?>[^/]*?{text})" if atomic else f"[^/]*{text}")
    if len(pieces) > 1:
        out.append("[^/]*" + "".join(pieces[-1]))
    return "".join(out)


def _bracket(pattern: str, at: int, out: list[str]) -> int:
    """Translate `[^a-z]` from after the `[`; return the position after the `]`."""
    import re

    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[str] = []
    while True:
        if at >= len(pattern):
            raise _bad_brackets(pattern)
        if pattern[at] == "]" and ranges:
            break
        low, at = _bracket_char(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _bracket_char(pattern, at + 1)
        if low > high:
            raise _bad_brackets(pattern)
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    out.append(f"[{'^' * negated}{''.join(ranges)}]")
    return at + 1


def _bracket_char(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at : at + 1] in {"", "-", "]"}:
        raise _bad_brackets(pattern)
    if pattern[at] == "\\":
        at += 1
    if at + 1 >= len(pattern):
        raise _bad_brackets(pattern)
    return pattern[at], at + 1


def _bad_brackets(pattern: str) -> InvalidPattern:
    return InvalidPattern(f"invalid pattern {pattern!r}: bad brackets")


def _reach(pattern: str) -> list[str | re.Pattern[str] | None]:
    """A negated pattern part by part; None from the first `**` on: anything may match there."""
    reach: list[str | re.Pattern[str] | None] = []
    for part in pattern.split("/"):
        if "**" in part:
            reach.append(None)
            break
        reach.append(_whole(part) if has_wildcards(part) or "\\" in part else part)
    return reach


def _overlaps(parts: list[str], reach: list[str | re.Pattern[str] | None]) -> bool:
    """Whether a path below `parts` can match, or has a parent that does."""
    for part, wanted in zip(parts, reach, strict=False):
        if wanted is None:
            return True
        if isinstance(wanted, str):
            if part != wanted:
                return False
        elif wanted.match(part) is None:
            return False
    return True


if TYPE_CHECKING:
    from collections.abc import Callable

    _Match = Callable[[str], "re.Match[str] | None"]
