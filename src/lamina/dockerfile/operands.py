# SPDX-License-Identifier: Apache-2.0
"""What the operands and flags of an instruction may be; the rest is refused by name, with its line."""

from __future__ import annotations

from lamina.dockerfile import ast
from lamina.dockerfile.lexer import parse_heredoc
from lamina.dockerfile.paths import clean
from lamina.dockerfile.values import MINIMUM_DURATION, InvalidValue, go_quote, parse_duration
from lamina.errors import Kind, SourceError
from lamina.start.record import Record


class FlagForm(Record):
    """What a flag takes: a `value`, `values` (it may be repeated) or a `boolean`.

    `sets` is the field of the op, or of its action, that it sets alone: explanations name the flag.
    One that is not `is_done` is of the language and refused.
    """

    takes: str
    sets: str = ""
    is_done: bool = True


_VALUE, _BOOLEAN = FlagForm("value"), FlagForm("boolean")
_CHOWN, _CHMOD = FlagForm("value", "owner"), FlagForm("value", "mode")
_EXCLUDE = FlagForm("values", "exclude")
FLAGS = {
    "FROM": {"platform": _VALUE},
    "RUN": {
        "mount": FlagForm("values"),
        "network": FlagForm("value", "network"),
        "security": FlagForm("value", "security"),
        "device": FlagForm("values", is_done=False),
    },
    "COPY": {
        "from": _VALUE,
        "chown": _CHOWN,
        "chmod": _CHMOD,
        "link": _BOOLEAN,
        "parents": FlagForm("boolean", "parents"),
        "exclude": _EXCLUDE,
    },
    "ADD": {
        "chown": _CHOWN,
        "chmod": _CHMOD,
        "link": _BOOLEAN,
        "keep-git-dir": _BOOLEAN,
        "checksum": _VALUE,
        "unpack": _BOOLEAN,
        "exclude": _EXCLUDE,
    },
    "HEALTHCHECK": {
        "interval": _VALUE,
        "timeout": _VALUE,
        "start-period": _VALUE,
        "start-interval": _VALUE,
        "retries": _VALUE,
    },
}
"""Every flag of the language, by instruction: what the parser takes and lowering knows."""


def error_at(
    command: ast.Instruction, what: str, *, kind: Kind | None = None, hint: str = ""
) -> SourceError:
    """An error at the instruction."""
    return SourceError(what, span=command.span, kind=kind, hint=hint)


def copy_keyword(command: ast.Copy) -> str:
    """COPY or ADD."""
    return "ADD" if command.add else "COPY"


def refuse_flags(command: ast.Instruction) -> None:
    """Raise SourceError (UNSUPPORTED) for a flag of the language that lowering does not know."""
    name = command.keyword.upper()
    for flag in command.flags:
        if not FLAGS[name][flag.name].is_done and flag.value != "false":
            raise SourceError(
                f"{name} --{flag.name} is not supported yet",
                span=flag.span,
                kind=Kind.UNSUPPORTED,
            )


def is_plain(text: str) -> bool:
    """Whether the text is UTF-8 and has no NUL: what paths, arguments and JSON can hold."""
    if text.isascii():
        return "\0" not in text
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def check_text(command: ast.Command) -> None:
    """Raise SourceError for an instruction that holds a NUL or is not UTF-8."""
    texts = [command.text]
    if isinstance(command, ast.Run):
        texts += [doc.content for doc in command.heredocs]
        texts += command.command.words
    elif isinstance(command, ast.Cmd | ast.Entrypoint | ast.HealthCheck):
        texts += command.command.words if command.command is not None else ()
    elif isinstance(command, ast.Copy):
        texts += [*command.sources, command.dest]
        texts += [doc.content for doc in command.documents]
    elif isinstance(command, ast.Shell):
        texts += command.words
    elif isinstance(command, ast.Volume):
        texts += command.paths
    elif isinstance(command, ast.OnBuild):
        texts.append(command.expression)
    if not all(map(is_plain, texts)):
        raise error_at(
            command, f"{command.keyword.upper()} holds a NUL or bytes that are not UTF-8"
        )


def join(directory: str, path: str) -> str:
    """The path, below the directory unless it is absolute; not cleaned."""
    return path if path.startswith("/") else f"{directory or '/'}/{path}"


def relative(source: str) -> str:
    """A COPY source below the root of its tree: `..` stops there, `.` is the root itself."""
    return clean("/" + source)[1:] or "."


def absolute(directory: str, dest: str) -> str:
    """A COPY destination, absolute and clean; a slash at the end if it names a directory."""
    path = clean(join(directory, dest))
    is_directory = dest in {"", "."} or dest.endswith(("/", "/."))
    return path if path == "/" or not is_directory else path + "/"


def is_only_heredoc(text: str) -> bool:
    """Whether the text is `<<NAME` and nothing else."""
    return parse_heredoc(text) is not None


def duration_flag(command: ast.HealthCheck, name: str) -> int:
    """The flag in nanoseconds, 0 if it was not given."""
    text = command.flag(name)
    if not text:
        return 0
    try:
        found = parse_duration(text)
    except InvalidValue as error:
        raise error_at(command, f"HEALTHCHECK --{name}: {error.what}") from error
    if found and found < MINIMUM_DURATION:
        raise error_at(command, f'Interval "{name}" cannot be less than 1ms')
    return found


def retries_flag(command: ast.HealthCheck) -> int:
    """The flag `--retries`, 0 if it was not given."""
    text = command.flag("retries")
    if not text:
        return 0
    digits = text.removeprefix("+")
    if text.startswith("-") and text[1:].isdigit():
        raise error_at(command, f"--retries cannot be negative ({text})")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 9:
        raise error_at(command, f"HEALTHCHECK --retries: invalid number {go_quote(text)}")
    return int(digits)
