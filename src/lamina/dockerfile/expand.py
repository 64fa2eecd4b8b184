# SPDX-License-Identifier: Apache-2.0
"""Variable expansion and word splitting as BuildKit's `frontend/dockerfile/shell` does them.

Rules (Dockerfile reference §Environment replacement): `$v ${v} ${v-w} ${v:-w} ${v+w} ${v:+w}
${v?e} ${v:?e} ${v#p} ${v##p} ${v%p} ${v%%p} ${v/p/r} ${v//p/r}`; single quotes keep everything,
double quotes keep everything but `$`, `"` and the escape character; the escape character keeps the
next one. In patterns `*` and `?` are wildcards and brackets are literal.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_EXPANSION = 1 << 20  # characters: `ENV A=$A$A` forty times would not fit any memory
_MAX_DEPTH = 64  # ${a:-${b:-...}}
_SPECIAL = frozenset("@*#?-$!0")  # POSIX special parameters: read as names, never set


class BadExpansion(LaminaError):
    kind = Kind.INVALID


class Expansion(Record):
    """A text after expansion, and the same split in words.

    `missing` are the variables that were used without being set and without a `:-` or similar.
    """

    text: str
    words: tuple[str, ...]
    used: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def expand(
    text: str,
    env: Mapping[str, str],
    *,
    escape: str = "\\",
    raw_quotes: bool = False,
    raw_escapes: bool = False,
    keep_unset: bool = False,
    heredocs: bool = False,
    plain_quotes: bool = False,
) -> Expansion:
    """`text` with its variables replaced from `env`.

    With `plain_quotes` quotes are ordinary characters, as in the text of a heredoc.

    `raw_quotes` and `raw_escapes` leave quotes and escape characters in the result, `keep_unset`
    leaves unset variables as written; `heredocs` keeps `<<` and the spaces after it in one word.

    Raises:
        BadExpansion: a quote or brace is not closed, a modifier is unknown, `${v?e}` of an unset
            variable, or the result is too long.
    """
    if not heredocs and not any(char in text for char in ("$", "'", '"', escape)):
        return Expansion(text, tuple(text.split()))
    scan = _Scan(text, env, escape)
    scan.raw_quotes = raw_quotes
    scan.keep_unset = keep_unset
    scan.heredocs = heredocs
    scan.plain_quotes = plain_quotes
    result, words = scan.until("", raw_escapes=raw_escapes)
    return Expansion(result, tuple(words), tuple(scan.used), tuple(scan.missing))


class _Words:
    """Collects characters into words; spaces that came from a quote do not split."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.open: list[str] = []

    def add(self, text: str) -> None:
        for char in text:
            if not char.isspace():
                self.open.append(char)
            elif self.open:
                self.close()

    def close(self) -> list[str]:
        word = "".join(self.open)
        if word:
            self.done.append(word)
        self.open = []
        return self.done


class _Scan:
    def __init__(self, text: str, env: Mapping[str, str], escape: str) -> None:
        self.text = text
        self.at = 0
        self.env = env
        self.escape = escape
        self.raw_quotes = False
        self.keep_unset = False
        self.heredocs = False
        self.plain_quotes = False
        self.used: dict[str, None] = {}
        self.missing: dict[str, None] = {}
        self.depth = 0

    def peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def next(self) -> str:
        char = self.peek()
        self.at += 1
        return char

    def until(self, stop: str, *, raw_escapes: bool) -> tuple[str, list[str]]:
        """Everything up to `stop` (consumed), or to the end if it is empty."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise BadExpansion("variable expansion nested too deeply")
        result: list[str] = []
        words = _Words()
        size = 0
        while char := self.peek():
            if char == stop:
                self.at += 1
                self.depth -= 1
                return "".join(result), words.close()
            piece = self._piece(char, words, raw_escapes=raw_escapes)
            result.append(piece)
            size += len(piece)
            if size > MAX_EXPANSION:
                raise BadExpansion(
                    f"expansion is longer than {MAX_EXPANSION} characters", kind=Kind.EXHAUSTED
                )
        if stop:
            raise BadExpansion(f"unexpected end of statement while looking for matching {stop}")
        self.depth -= 1
        return "".join(result), words.close()

    def _piece(self, char: str, words: _Words, *, raw_escapes: bool) -> str:
        if char == "$":
            piece = self._dollar(raw_escapes=raw_escapes)
            words.add(piece)
            return piece
        if char in {"'", '"'} and not self.plain_quotes:
            quote = self._single if char == "'" else self._double
            piece = quote(raw_escapes=raw_escapes)
            words.open.append(piece)
            return piece
        if char == "<" and self.heredocs:
            piece = self._heredoc()
            words.open.append(piece)
            return piece
        self.at += 1
        if char != self.escape:
            words.add(char)
            return char
        kept = (self.escape if raw_escapes else "") + self.next()
        words.open.append(kept)
        return kept

    def _single(self, *, raw_escapes: bool) -> str:
        del raw_escapes  # nothing is an escape between single quotes
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise BadExpansion(
                "unexpected end of statement while looking for matching single-quote"
            )
        inside = self.text[self.at + 1 : end]
        self.at = end + 1
        return f"'{inside}'" if self.raw_quotes else inside

    def _double(self, *, raw_escapes: bool) -> str:
        self.at += 1
        result: list[str] = []
        while char := self.peek():
            if char == '"':
                self.at += 1
                inside = "".join(result)
                return f'"{inside}"' if self.raw_quotes else inside
            if char == "$":
                result.append(self._dollar(raw_escapes=raw_escapes))
                continue
            self.at += 1
            if char == self.escape:
                if raw_escapes:
                    result.append(char)
                following = self.peek()
                if not following:
                    break
                if following in {'"', "$", self.escape}:
                    self.at += 1
                    char = following
            result.append(char)
        raise BadExpansion("unexpected end of statement while looking for matching double-quote")

    def _heredoc(self) -> str:
        """`<<` and the spaces after it, so that `<< EOF` is one word; any other `<` as it is."""
        start = self.at
        self.at += 1
        if self.peek() == "<":
            self.at += 1
            while self.peek().isspace():
                self.at += 1
        return self.text[start : self.at]

    def _dollar(self, *, raw_escapes: bool) -> str:
        self.at += 1
        if self.peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._get(name)
            if value is None:
                self.missing[name] = None
                return f"${name}" if self.keep_unset else ""
            return value
        self.at += 1
        if not self.peek():
            raise BadExpansion("syntax error: missing '}'")
        if self.peek() in "{}:":
            raise BadExpansion("syntax error: bad substitution")
        return self._braces(self._name(), raw_escapes=raw_escapes)

    def _braces(self, name: str, *, raw_escapes: bool) -> str:
        """What follows `${name`."""
        del raw_escapes
        modifier = self.next()
        value = self._get(name)
        if modifier == "}":
            if value is None:
                self.missing[name] = None
                return f"${{{name}}}" if self.keep_unset else ""
            return value
        colon = modifier == ":"
        if colon:
            modifier = self.next()
        shown = ":" * colon + modifier
        if modifier and modifier in "+-?#%":
            word = self._word("}", raw_escapes=modifier in "#%")
            if value is None and modifier in "#%":
                self.missing[name] = None
            if value is None and self.keep_unset:
                return f"${{{name}{shown}{word}}}"
            return _modify(modifier, name, value, word, null_is_unset=colon)
        if modifier == "/" and not colon:
            return self._replace(name, value)
        if not modifier:
            raise BadExpansion("syntax error: missing '}'")
        raise BadExpansion(f"unsupported modifier ({shown}) in substitution")

    def _replace(self, name: str, value: str | None) -> str:
        everywhere = self.peek() == "/"
        if everywhere:
            self.at += 1
        pattern = self._word("/", raw_escapes=True)
        replacement = self._word("}", raw_escapes=True)
        if value is None:
            self.missing[name] = None
            if self.keep_unset:
                return f"${{{name}{'/' * (1 + everywhere)}{pattern}/{replacement}}}"
            value = ""
        return Glob(pattern).replace(value, replacement, everywhere=everywhere)

    def _word(self, stop: str, *, raw_escapes: bool) -> str:
        try:
            return self.until(stop, raw_escapes=raw_escapes)[0]
        except BadExpansion as error:
            if self.at >= len(self.text) and "looking for matching " + stop in error.what:
                raise BadExpansion(f"syntax error: missing '{stop}'") from error
            raise

    def _name(self) -> str:
        start = self.at
        char = self.peek()
        if char.isdigit():
            while self.peek().isdigit():
                self.at += 1
        elif char and char in _SPECIAL:
            self.at += 1
        else:
            while (char := self.peek()) and (char.isalnum() or char == "_"):
                self.at += 1
        return self.text[start : self.at]

    def _get(self, name: str) -> str | None:
        value = self.env.get(name)
        if value is not None:
            self.used[name] = None
        return value


def _modify(modifier: str, name: str, value: str | None, word: str, *, null_is_unset: bool) -> str:
    present = value is not None and (value != "" or not null_is_unset)
    if modifier == "-":
        return value if value is not None and present else word
    if modifier == "+":
        return word if present else ""
    if modifier == "?":
        if value is None or not present:
            state = "unset" if value is None else "empty"
            raise BadExpansion(f"{name}: {word or f'is not allowed to be {state}'}")
        return value
    if null_is_unset:
        raise BadExpansion(f"unsupported modifier (:{modifier}) in substitution")
    longest = word.startswith(modifier)
    glob = Glob(word[1:] if longest else word)
    trim = glob.trim_prefix if modifier == "#" else glob.trim_suffix
    return trim(value or "", longest=longest)


class Glob:
    r"""A shell pattern of `*` and `?`, matched in one pass whatever the pattern is.

    A set of positions in the pattern is kept as the bits of an integer; no pattern makes it slow,
    as patterns may come from anywhere. `\*`, `\?` and `\\` are literal; a backslash before `}`
    or `/` belongs to the `${}` around it and disappears.

    Raises:
        BadExpansion: a backslash before anything else.
    """

    def __init__(self, pattern: str) -> None:
        self._literals: list[str] = []  # "" is `?`
        self._stars: set[int] = set()  # a `*` stands before literal i
        at = 0
        while at < len(pattern):
            char = pattern[at]
            at += 1
            if char == "*":
                self._stars.add(len(self._literals))
                continue
            if char == "\\":
                following = pattern[at : at + 1]
                if following not in {"*", "?", "\\", "}", "/"} or not following:
                    raise BadExpansion(
                        f"invalid pattern ({pattern}) in substitution: invalid escape '\\{following}'"
                    )
                at += 1
                self._literals.append(following)
                continue
            self._literals.append("" if char == "?" else char)

    def trim_prefix(self, value: str, *, longest: bool) -> str:
        """`value` without the shortest or longest prefix that matches."""
        ends = self._ends(value, longest=longest, reverse=False)
        return value if ends is None else value[ends:]

    def trim_suffix(self, value: str, *, longest: bool) -> str:
        """`value` without the shortest or longest suffix that matches."""
        size = self._ends(value[::-1], longest=longest, reverse=True)
        return value if size is None else value[: len(value) - size]

    def replace(self, value: str, replacement: str, *, everywhere: bool) -> str:
        """`value` with the first (or each) longest match, leftmost first, replaced."""
        if not self._literals and not self._stars:
            return value
        starts = self._starts(value)
        result: list[str] = []
        size = 0
        at = 0
        for start in starts:
            if start < at:
                continue
            length = self._ends(value[start:], longest=True, reverse=False)
            if not length:
                continue
            result += [value[at:start], replacement]
            size += len(replacement)
            if size > MAX_EXPANSION:
                raise BadExpansion("expansion is too long", kind=Kind.EXHAUSTED)
            at = start + length
            if not everywhere:
                break
        return "".join([*result, value[at:]])

    def _starts(self, value: str) -> list[int]:
        """Where a match can begin, in order: the reversed pattern, begun anew at each character."""
        masks, any_mask, loops, final = self._tables(reverse=True)
        state = 1
        found = []
        for position in range(len(value) - 1, -1, -1):
            step = masks.get(value[position], 0) | any_mask
            state = ((state & step) << 1) | (state & loops) | 1
            if state & final:
                found.append(position)
        return found[::-1]

    def _ends(self, value: str, *, longest: bool, reverse: bool) -> int | None:
        """The length of the shortest or longest match at the start; None if there is none."""
        masks, any_mask, loops, final = self._tables(reverse=reverse)
        state = 1
        best = 0 if state & final else None
        for position, char in enumerate(value):
            if best is not None and not longest:
                break
            step = masks.get(char, 0) | any_mask
            state = ((state & step) << 1) | (state & loops)
            if not state:
                break
            if state & final:
                best = position + 1
        return best

    def _tables(self, *, reverse: bool) -> tuple[dict[str, int], int, int, int]:
        count = len(self._literals)
        literals = self._literals[::-1] if reverse else self._literals
        masks: dict[str, int] = {}
        any_mask = 0
        for index, char in enumerate(literals):
            if char:
                masks[char] = masks.get(char, 0) | 1 << index
            else:
                any_mask |= 1 << index
        loops = 0
        for star in self._stars:
            loops |= 1 << (count - star if reverse else star)
        return masks, any_mask, loops, 1 << count
