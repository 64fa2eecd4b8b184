# SPDX-License-Identifier: Apache-2.0
"""Physical lines to logical lines: directives, comments, continuations, heredoc bodies.

After BuildKit's `frontend/dockerfile/parser/parser.go`. A `Logical` remembers where each character
came from, so that an error can point at it.
"""

from __future__ import annotations

from lamina.dockerfile.ast import Directive, Heredoc
from lamina.dockerfile.expand import BadExpansion, expand
from lamina.dockerfile.words import parse_json, printable, split_flags
from lamina.errors import Kind, SourceError
from lamina.spec.span import SourceText, Span
from lamina.start.pattern import pattern
from lamina.start.record import Record

MAX_FILE = 4 << 20  # bytes; far above any real Dockerfile
MAX_LINE = 65_535  # bytes of a physical line, as BuildKit's scanner
MAX_LOGICAL = 1 << 20  # characters of an instruction, continuations joined
DIRECTIVES = frozenset({"syntax", "escape", "check"})
_BOM = b"\xef\xbb\xbf"
_SPACE = " \t\v\f\r\n\x85\xa0"  # unicode.IsSpace in the Latin-1 range, what Go trims
# compiled on first use, as few files need them: start-up time
_DIRECTIVE = pattern(r"([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$")
_HEREDOC = pattern(r"(\d*)<<(-?)(\s*)([^<]*)$")
_TAKES_HEREDOC = pattern(r"(?i:\s*(?:ONBUILD\s+)*(?:RUN|COPY|ADD)\s)")


class Logical(Record):
    """An instruction in one line. `pieces` are (offset in `text`, line, column) in order."""

    source: SourceText
    text: str
    pieces: tuple[tuple[int, int, int], ...]
    start: int
    end: int
    comments: tuple[str, ...]
    heredocs: tuple[Heredoc, ...] = ()

    @property
    def span(self) -> Span:
        """All its lines."""
        return Span(self.source, self.start, self.end)

    def at(self, offset: int, width: int) -> Span:
        """The place of `width` characters from `offset` of the text."""
        origin, line, column = self.pieces[0]
        for piece in self.pieces:
            if piece[0] > offset:
                break
            origin, line, column = piece
        column += offset - origin
        return Span(self.source, line, line, column, max(1, width))


class Lexer:
    """Reads a Dockerfile from its first line to its last.

    `read()` yields the logical lines; `directives`, `escape` and `empty_continuations` are
    complete when it ends (the first two as soon as it has yielded once).
    """

    def __init__(self, data: bytes, *, name: str) -> None:
        raw = data.removeprefix(_BOM)
        lines = raw.decode("utf-8", "surrogateescape").split("\n")
        if lines[-1] == "":
            lines.pop()
        self._raw = lines  # with carriage returns, for heredoc bodies
        self._lines = tuple(line.rstrip("\r") for line in lines)
        self.source = SourceText(name, tuple(map(printable, self._lines)))
        self.directives: list[Directive] = []
        self.escape = "\\"
        self.empty_continuations: list[Span] = []
        self._next = 0
        self._check_sizes(len(data))

    def _check_sizes(self, size: int) -> None:
        if size > MAX_FILE:
            raise SourceError(
                f"the Dockerfile is larger than {MAX_FILE} bytes",
                span=Span(SourceText(self.source.name, ("",)), 1, 1),
                kind=Kind.EXHAUSTED,
            )
        for index, line in enumerate(self._lines):
            if len(line) > MAX_LINE:
                cut = tuple(text[:200] for text in self.source.lines)
                raise SourceError(
                    f"dockerfile line greater than max allowed size of {MAX_LINE}",
                    span=Span(SourceText(self.source.name, cut), index + 1, index + 1),
                    kind=Kind.EXHAUSTED,
                )

    def read(self) -> list[Logical]:
        """Every instruction in order. Raises SourceError."""
        self._read_directives()
        found: list[Logical] = []
        comments: list[str] = []
        while self._next < len(self._lines):
            line = self._lines[self._next].lstrip(_SPACE)
            if line.startswith("#"):
                comment = line[1:].strip(_SPACE)
                comments = [*comments, comment] if comment else []
                self._next += 1
            elif not line:
                self._next += 1
            else:
                logical = self._instruction(tuple(comments))
                if logical is not None:
                    found.append(logical)
                comments = []
        return found

    def _read_directives(self) -> None:
        """`# name=value` lines at the very top; the first other line ends them."""
        seen: set[str] = set()
        for index, line in enumerate(self._lines):
            text = line.lstrip(_SPACE)
            match = _DIRECTIVE.match(text[1:].lstrip(_SPACE)) if text.startswith("#") else None
            name = match[1].lower() if match else ""
            if match is None or name not in DIRECTIVES:
                return
            span = Span(self.source, index + 1, index + 1)
            if name in seen:
                raise SourceError(f"only one {name} parser directive can be used", span=span)
            seen.add(name)
            if name == "escape":
                if match[2] not in {"\\", "`"}:
                    raise SourceError(
                        f"invalid escape token '{match[2]}' does not match ` or \\", span=span
                    )
                self.escape = match[2]
            self.directives.append(Directive(name, printable(match[2]), span))
            self._next = index + 1

    def _continues(self, line: str) -> str | None:
        """The line without its continuation character; None if it does not continue."""
        text = line.rstrip(" \t")
        if not text.endswith(self.escape):
            return None
        if text.endswith(self.escape * 2):
            return None  # an escaped escape character, as BuildKit sees it
        return text[:-1]

    def _instruction(self, comments: tuple[str, ...]) -> Logical | None:
        start = self._next + 1
        text: list[str] = []
        pieces: list[tuple[int, int, int]] = []
        length = 0
        empty = False
        while self._next < len(self._lines):
            line = self._lines[self._next]
            stripped = line.lstrip(_SPACE)
            self._next += 1
            if text and (not stripped or stripped.startswith("#")):
                empty = empty or not stripped
                continue
            body = line if text else stripped
            cut = self._continues(body)
            body = body if cut is None else cut
            pieces.append((length, self._next, 0 if text else len(line) - len(stripped)))
            text.append(body)
            length += len(body)
            if length > MAX_LOGICAL:
                raise SourceError(
                    f"an instruction longer than {MAX_LOGICAL} characters",
                    span=Span(self.source, start, start),
                    kind=Kind.EXHAUSTED,
                )
            if cut is None:
                break
        if empty:
            self.empty_continuations.append(Span(self.source, self._next, self._next))
        joined = "".join(text)
        if not joined.strip(_SPACE):
            return None
        logical = Logical(self.source, joined, tuple(pieces), start, self._next, comments)
        return self._with_heredocs(logical)

    def _with_heredocs(self, logical: Logical) -> Logical:
        text = logical.text
        if "<<" not in text or not _TAKES_HEREDOC.match(text) or _is_exec_form(text):
            return logical
        documents: list[Heredoc] = []
        for opening in find_heredocs(text):
            document = self._body(opening, logical)
            if document is not None:
                documents.append(document)
        return Logical(
            logical.source,
            text,
            logical.pieces,
            logical.start,
            self._next,
            logical.comments,
            tuple(documents),
        )

    def _body(self, opening: Opening, logical: Logical) -> Heredoc | None:
        """Read lines up to the terminator. None if `<< x` turns out to be no heredoc."""
        begin = self._next
        content: list[str] = []
        for index in range(begin, len(self._lines)):
            line = self._lines[index]
            if (line.lstrip("\t") if opening.chomp else line) == opening.name:
                self._next = index + 1
                return Heredoc(
                    opening.name,
                    "".join(content),
                    opening.expand,
                    opening.chomp,
                    opening.descriptor,
                )
            content.append(self._raw[index] + "\n")
        if opening.spaced:
            return None  # `$((1 << 3))`
        raise SourceError(
            f"unterminated heredoc: no line is {opening.name!r}",
            span=Span(self.source, logical.start, logical.end),
        )


class Opening(Record):
    """`<<NAME`, before its body is read; `spaced` if there was a space after `<<`."""

    name: str
    expand: bool
    chomp: bool
    descriptor: int
    spaced: bool


def find_heredocs(text: str) -> list[Opening]:
    """The heredocs that a line opens, in order."""
    try:
        words = expand(text, {}, raw_quotes=True, raw_escapes=True, keep_unset=True, heredocs=True)
    except BadExpansion:
        return []  # an odd quote: the shell will say what it thinks of it
    found = [parse_heredoc(word) for word in words.words]
    return [opening for opening in found if opening is not None]


def parse_heredoc(word: str) -> Opening | None:
    """The heredoc that `word` opens, if it is one (`<<EOF`, `<<-"EOF"`, `3<<EOF`)."""
    match = _HEREDOC.match(word)
    if match is None or not match[4] or len(match[1]) > 9:
        return None
    try:
        plain = expand(match[4], {}, keep_unset=True)
        raw = expand(match[4], {}, keep_unset=True, raw_quotes=True)
    except BadExpansion:
        return None
    if len(plain.words) != 1 or len(raw.words) != 1:
        return None
    quoted = _quotes(plain.words[0]) != _quotes(raw.words[0])
    return Opening(plain.words[0], not quoted, match[2] == "-", int(match[1] or 0), bool(match[3]))


def _quotes(text: str) -> int:
    return text.count("'") + text.count('"')


def _is_exec_form(text: str) -> bool:
    """Whether the arguments are a JSON array (flags before it may be there)."""
    opening = _TAKES_HEREDOC.match(text)
    rest = text[opening.end() :] if opening else ""
    if rest.lstrip(_SPACE)[:1] not in {"[", "-"}:
        return False
    arguments = split_flags(rest, "\\")[1]
    try:
        return parse_json(arguments) is not None
    except ValueError:
        return False
