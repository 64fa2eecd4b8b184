# SPDX-License-Identifier: Apache-2.0
"""Dockerfile text to syntax tree (`parse`), after BuildKit's parser and `instructions` packages.

Each instruction has one function in `_PARSERS`, which takes a `_Line` (the instruction cut into
keyword, flags and rest). Adding an instruction or a flag is one entry in `_PARSERS` or `operands.FLAGS`.
"""

from __future__ import annotations

from lamina.dockerfile import ast
from lamina.dockerfile.lexer import Lexer, Logical, parse_heredoc
from lamina.dockerfile.operands import FLAGS
from lamina.dockerfile.words import (
    SPACE,
    NotStrings,
    parse_json,
    printable,
    split_flags,
    split_words,
    suggest,
)
from lamina.errors import Kind, LaminaError, SourceError
from lamina.spec.reference import Reference
from lamina.spec.span import Span
from lamina.start.pattern import pattern
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.dockerfile.operands import FlagForm

# compiled on first use, as few files need them all: start-up time
_BLANK = pattern(r"[\t\v\f\r ]")
_STAGE_NAME = pattern(r"[a-z][a-z0-9-_.]*")
_ONBUILD = pattern(r"(?i:\s*ONBUILD\s*)")
_FRONT_ENDS = ("/docker/dockerfile", "/docker/dockerfile-upstream")


class _Line(Record):
    """An instruction before its arguments are understood; `rest` starts at `offset`."""

    logical: Logical
    keyword: str
    name: str
    flags: tuple[ast.Flag, ...]
    rest: str
    offset: int
    escape: str
    span: Span

    def error(self, what: str, *, hint: str = "") -> SourceError:
        return SourceError(what, span=self.span, hint=hint)


def parse(data: bytes, *, name: str = "Dockerfile") -> ast.Dockerfile:
    """The syntax tree of `data`; `name` is what errors call the file.

    Raises:
        SourceError: with a span always; kind INVALID for bad syntax, UNSUPPORTED for a `syntax`
            directive that is not docker/dockerfile, EXHAUSTED for a file or line too large.
    """
    try:
        return _parse(Lexer(data, name=name))
    except SourceError as error:
        error.what = printable(error.what)
        raise


def _parse(lexer: Lexer) -> ast.Dockerfile:
    logicals = lexer.read()
    _check_syntax(lexer.directives)
    if not logicals:
        raise SourceError("file with no instructions", span=_first_line(lexer))
    global_args: list[ast.Arg] = []
    stages: list[ast.Stage] = []
    start: ast.From | None = None
    commands: list[ast.Command] = []
    for logical in logicals:
        found = _parse_line(_cut(logical, lexer.escape))
        if isinstance(found, ast.From):
            if start is not None:
                stages.append(ast.Stage(len(stages), start, tuple(commands)))
            start, commands = found, []
        elif start is not None:
            commands.append(found)
        elif isinstance(found, ast.Arg):
            global_args.append(found)
        else:
            raise SourceError(
                "no build stage in current context",
                span=found.span,
                hint="only ARG may stand before the first FROM",
            )
    if start is None:
        raise SourceError("dockerfile contains no stages to build", span=logicals[-1].span)
    stages.append(ast.Stage(len(stages), start, tuple(commands)))
    return ast.Dockerfile(
        lexer.source,
        tuple(lexer.directives),
        lexer.escape,
        tuple(global_args),
        tuple(stages),
        tuple(lexer.empty_continuations),
    )


def parse_trigger(text: str) -> ast.Command:
    """The instruction of an ONBUILD trigger stored in an image.

    Raises:
        SourceError: not exactly one instruction, or one that no trigger may be.
    """
    data = text.encode("utf-8", "surrogateescape")
    lexer = Lexer(data, name="ONBUILD trigger")
    logicals = lexer.read()
    if len(logicals) != 1:
        raise SourceError("onbuild trigger should be a single expression", span=_first_line(lexer))
    return _trigger(logicals[0], lexer.escape)


def _first_line(lexer: Lexer) -> Span:
    from lamina.spec.span import SourceText, Span

    source = lexer.source if lexer.source.lines else SourceText(lexer.source.name, ("",))
    return Span(source, 1, 1)


def _check_syntax(directives: list[ast.Directive]) -> None:
    for directive in directives:
        frontend = directive.value.split(" ")[0]
        if directive.name == "syntax" and not _is_docker(frontend):
            raise SourceError(
                f"syntax {frontend} is not supported: lamina reads the language of docker/dockerfile",
                span=directive.span,
                kind=Kind.UNSUPPORTED,
                hint="remove the directive if the file is an ordinary Dockerfile",
            )


def _is_docker(frontend: str) -> bool:
    """Whether the image is Docker's front end, from its own registry or from a mirror of it."""
    try:
        repository = Reference.parse(frontend).repository
    except LaminaError:
        return False
    return f"/{repository}".endswith(_FRONT_ENDS)


def _cut(logical: Logical, escape: str) -> _Line:
    text = logical.text
    begin = len(text) - len(text.lstrip())
    keyword = _BLANK.split(text[begin:], maxsplit=1)[0]
    after = begin + len(keyword)
    name = keyword.upper()
    if name not in _PARSERS:
        nearest = suggest(name, list(_PARSERS))
        raise SourceError(
            f"unknown instruction: {keyword}" + (f" (did you mean {nearest}?)" if nearest else ""),
            span=logical.at(begin, len(keyword)),
        )
    found, rest, offset = split_flags(text[after:], escape)
    known = FLAGS.get(name, {})
    flags: dict[str, list[ast.Flag]] = {}
    for word, at, width in found:
        flag = _flag(word, known, name, logical.at(after + at, width))
        if flag.name in flags and known[flag.name].takes != "values":
            raise SourceError(f"duplicate flag specified: {flag.name}", span=flag.span)
        flags.setdefault(flag.name, []).append(flag)
    ordered = tuple(flag for group in flags.values() for flag in group)
    return _Line(logical, keyword, name, ordered, rest, after + offset, escape, logical.span)


def _flag(word: str, known: dict[str, FlagForm], name: str, span: Span) -> ast.Flag:
    flag, equals, value = word[2:].partition("=")
    if flag not in known:
        nearest = suggest(flag, list(known))
        hint = f" (did you mean --{nearest}?)" if nearest else ""
        raise SourceError(f"unknown flag: {name} --{flag}{hint}", span=span)
    if known[flag].takes != "boolean":
        if not equals:
            raise SourceError(f"missing a value on flag: {flag}", span=span)
        return ast.Flag(flag, value, span)
    if equals and not value:
        raise SourceError(f"missing a value on flag: {flag}", span=span)
    if equals and value.lower() not in {"true", "false"}:
        raise SourceError(f"expecting boolean value for flag {flag}, not: {value}", span=span)
    return ast.Flag(flag, value.lower() if equals else None, span)


def _parse_line(line: _Line) -> ast.From | ast.Command:
    try:
        return _PARSERS[line.name](line)
    except NotStrings as error:
        raise line.error(
            "when using JSON array syntax, arrays must be comprised of strings only"
        ) from error


def _base(line: _Line) -> tuple[str, str, Span, tuple[ast.Flag, ...], tuple[str, ...]]:
    """The fields every instruction starts with, in order."""
    return line.keyword, line.logical.text.strip(), line.span, line.flags, line.logical.comments


def _one(line: _Line) -> str:
    if not line.rest:
        raise line.error(f"{line.name} requires exactly one argument")
    return line.rest


def _list(line: _Line) -> tuple[str, ...]:
    """A JSON array, or words between white space."""
    found = parse_json(line.rest)
    if found is not None:
        return found
    return tuple(word for word in SPACE.split(line.rest) if word)


def _command_line(rest: str) -> ast.CommandLine:
    found = parse_json(rest)
    if found is not None:
        return ast.CommandLine(found, shell=False)
    return ast.CommandLine((rest,) if rest else (), shell=True)  # noqa: S604  # a field, not a call of a shell


def _from(line: _Line) -> ast.From:
    words = [word for word in SPACE.split(line.rest) if word]
    if len(words) == 1:
        return ast.From(*_base(line), base=words[0], name="", as_keyword="", as_name="")
    if len(words) != 3 or words[1].lower() != "as":
        raise line.error("FROM requires either one or three arguments")
    name = words[2].lower()
    if not _STAGE_NAME.fullmatch(name):
        offset = line.logical.text.rfind(words[2])
        raise SourceError(
            f'invalid name for build stage: "{words[2]}", '
            "name can't start with a number or contain symbols",
            span=line.logical.at(offset, len(words[2])),
        )
    return ast.From(*_base(line), base=words[0], name=name, as_keyword=words[1], as_name=words[2])


def _arg(line: _Line) -> ast.Arg:
    args: list[tuple[str, str | None]] = []
    for word in split_words(line.rest, line.escape):
        name, equals, value = word.partition("=")
        if not name:
            raise line.error("ARG names can not be blank")
        args.append((name, value if equals else None))
    if not args:
        raise line.error("ARG requires at least one argument")
    return ast.Arg(*_base(line), args=tuple(args))


def _pairs(line: _Line) -> tuple[ast.KeyValue, ...]:
    words = split_words(line.rest, line.escape)
    if not words:
        raise line.error(f"{line.name} requires at least one argument")
    if "=" not in words[0]:
        parts = SPACE.split(line.rest, maxsplit=1)
        if len(parts) < 2:
            raise line.error(f"{line.name} must have two arguments")
        return (ast.KeyValue(parts[0], parts[1], legacy=True),)
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise line.error(
                f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value'
            )
        if not name:
            raise line.error(f"{line.name} names can not be blank")
        pairs.append(ast.KeyValue(name, value))
    return tuple(pairs)


def _env(line: _Line) -> ast.Env:
    return ast.Env(*_base(line), pairs=_pairs(line))


def _label(line: _Line) -> ast.Label:
    return ast.Label(*_base(line), pairs=_pairs(line))


def _run(line: _Line) -> ast.Run:
    command = _command_line(line.rest)
    if not command.words and command.shell:
        raise line.error("RUN requires at least one argument")
    heredocs = line.logical.heredocs if command.shell else ()
    return ast.Run(*_base(line), command=command, heredocs=heredocs)


def _copy(line: _Line) -> ast.Copy:
    words = _list(line)
    if len(words) < 2:
        raise line.error(
            f"{line.name} requires at least two arguments, but only {len(words)} "
            f"{'was' if len(words) == 1 else 'were'} provided. Destination could not be determined"
        )
    bodies = list(line.logical.heredocs)
    sources: list[str] = []
    documents: list[ast.Heredoc] = []
    for word in words[:-1]:
        opening = parse_heredoc(word) if bodies else None
        match = next((b for b in bodies if opening and b.name == opening.name), None)
        if match is None:
            sources.append(word)
        else:
            bodies.remove(match)
            documents.append(match)
    if bodies:
        raise line.error(f"{line.name} cannot accept a heredoc as a destination")
    return ast.Copy(
        *_base(line),
        sources=tuple(sources),
        documents=tuple(documents),
        dest=words[-1],
        add=line.name == "ADD",
    )


def _workdir(line: _Line) -> ast.Workdir:
    return ast.Workdir(*_base(line), path=_one(line))


def _user(line: _Line) -> ast.User:
    return ast.User(*_base(line), user=_one(line))


def _expose(line: _Line) -> ast.Expose:
    ports = sorted(word for word in SPACE.split(line.rest) if word)
    if not ports:
        raise line.error("EXPOSE requires at least one argument")
    return ast.Expose(*_base(line), ports=tuple(ports))


def _volume(line: _Line) -> ast.Volume:
    paths = tuple(path.strip() for path in _list(line))
    if not paths:
        raise line.error("VOLUME requires at least one argument")
    if not all(paths):
        raise line.error("VOLUME specified can not be an empty string")
    return ast.Volume(*_base(line), paths=paths)


def _cmd(line: _Line) -> ast.Cmd:
    return ast.Cmd(*_base(line), command=_command_line(line.rest))


def _entrypoint(line: _Line) -> ast.Entrypoint:
    return ast.Entrypoint(*_base(line), command=_command_line(line.rest))


def _shell(line: _Line) -> ast.Shell:
    words = parse_json(line.rest)
    if words is None:
        raise line.error(
            "SHELL requires the arguments to be in JSON form",
            hint='for example: SHELL ["/bin/bash", "-c"]',
        )
    if not words:
        raise line.error("SHELL requires at least one argument")
    return ast.Shell(*_base(line), words=words)


def _stop_signal(line: _Line) -> ast.StopSignal:
    return ast.StopSignal(*_base(line), signal=_one(line))


def _maintainer(line: _Line) -> ast.Maintainer:
    return ast.Maintainer(*_base(line), maintainer=_one(line))


def _healthcheck(line: _Line) -> ast.HealthCheck:
    parts = line.rest.split(maxsplit=1)
    if not parts:
        raise line.error("HEALTHCHECK requires at least one argument")
    kind, rest = parts[0].upper(), parts[1] if len(parts) > 1 else ""
    if kind == "NONE":
        if rest:
            raise line.error("HEALTHCHECK NONE takes no arguments")
        if line.flags:
            raise SourceError("HEALTHCHECK NONE takes no options", span=line.flags[0].span)
        return ast.HealthCheck(*_base(line), command=None)
    if kind != "CMD":
        raise line.error(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)')
    command = _command_line(rest)
    if not command.words:
        raise line.error("Missing command after HEALTHCHECK CMD")
    return ast.HealthCheck(*_base(line), command=command)


def _onbuild(line: _Line) -> ast.OnBuild:
    if not line.rest:
        raise line.error("ONBUILD requires at least one argument")
    logical = line.logical
    shift = line.offset
    # the trigger is a line of its own, whose characters keep their places in the file
    inner = Logical(
        logical.source,
        logical.text[shift:],
        tuple(
            (max(0, offset - shift), row, column + max(0, shift - offset))
            for offset, row, column in _from_offset(logical.pieces, shift)
        ),
        logical.start,
        logical.end,
        (),
        logical.heredocs,
    )
    trigger = _trigger(inner, line.escape)
    expression = _ONBUILD.sub("", logical.text, count=1).strip()
    for heredoc in logical.heredocs:
        expression += "\n" + heredoc.content + heredoc.name
    return ast.OnBuild(*_base(line), expression=expression, trigger=trigger)


def _from_offset(
    pieces: tuple[tuple[int, int, int], ...], shift: int
) -> list[tuple[int, int, int]]:
    """The pieces that reach beyond `shift`."""
    return [
        piece
        for piece, following in zip(pieces, (*pieces[1:], None), strict=True)
        if following is None or following[0] > shift
    ]


def _trigger(logical: Logical, escape: str) -> ast.Command:
    line = _cut(logical, escape)
    if line.name == "ONBUILD":
        raise line.error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if line.name in {"FROM", "MAINTAINER"}:
        raise line.error(f"{line.name} isn't allowed as an ONBUILD trigger")
    found = _parse_line(line)
    assert not isinstance(found, ast.From)
    return found


_PARSERS: dict[str, Callable[[_Line], ast.From | ast.Command]] = {
    "FROM": _from,
    "ARG": _arg,
    "ENV": _env,
    "LABEL": _label,
    "RUN": _run,
    "COPY": _copy,
    "ADD": _copy,
    "WORKDIR": _workdir,
    "USER": _user,
    "EXPOSE": _expose,
    "VOLUME": _volume,
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "HEALTHCHECK": _healthcheck,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
}
