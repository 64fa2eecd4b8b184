# SPDX-License-Identifier: Apache-2.0
"""The syntax tree of a Dockerfile: what was written, before any variable is expanded.

Every instruction knows the lines it stands on (`span`, heredoc bodies included) and its text in
one line (`text`, continuations joined). Text is decoded as UTF-8 with `surrogateescape`, so that
any bytes survive to the place that must refuse them.
"""

from __future__ import annotations

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.spec.span import SourceText, Span


class Directive(Record):
    """A parser directive (`# syntax=...`) at the top of the file; `name` in lower case."""

    name: str
    value: str
    span: Span


class Flag(Record):
    """`--name=value` before an instruction's arguments; `value` is None for a bare `--name`."""

    name: str
    value: str | None
    span: Span


class Heredoc(Record):
    """A `<<NAME` document. `expand` is False if the name was quoted, `chomp` for `<<-`.

    `content` is as written, with its line ends; `chomped()` drops leading tabs if asked to.
    """

    name: str
    content: str
    expand: bool
    chomp: bool
    descriptor: int = 0

    def chomped(self) -> str:
        """The content, leading tabs of each line removed for `<<-`."""
        if not self.chomp:
            return self.content
        return "\n".join(line.lstrip("\t") for line in self.content.split("\n"))


class CommandLine(Record):
    """A command: in shell form one text for the shell, else (`shell` False) a JSON array."""

    words: tuple[str, ...]
    shell: bool


class KeyValue(Record):
    """`name=value`; `legacy` for the old `NAME value` form."""

    name: str
    value: str
    legacy: bool = False


class Instruction(Record):
    """What all instructions have. `keyword` as written; `comments` stand right above it."""

    keyword: str
    text: str
    span: Span
    flags: tuple[Flag, ...]
    comments: tuple[str, ...]

    def flag(self, name: str) -> str | None:
        """The value of a flag (`true` for a bare one), None if it was not given."""
        for found in self.flags:
            if found.name == name:
                return "true" if found.value is None else found.value
        return None


class From(Instruction):
    """FROM. `name` is in lower case, empty without AS; `as_keyword` and `as_name` as written."""

    base: str
    name: str
    as_keyword: str
    as_name: str


class Arg(Instruction):
    """ARG: (name, default or None) each."""

    args: tuple[tuple[str, str | None], ...]


class Env(Instruction):
    """ENV."""

    pairs: tuple[KeyValue, ...]


class Label(Instruction):
    """LABEL."""

    pairs: tuple[KeyValue, ...]


class Run(Instruction):
    """RUN."""

    command: CommandLine
    heredocs: tuple[Heredoc, ...]


class Copy(Instruction):
    """COPY, and ADD where `add` is set. Heredoc sources are in `documents`, not in `sources`."""

    sources: tuple[str, ...]
    documents: tuple[Heredoc, ...]
    dest: str
    add: bool


class Workdir(Instruction):
    """WORKDIR."""

    path: str


class User(Instruction):
    """USER."""

    user: str


class Expose(Instruction):
    """EXPOSE: port words, not yet expanded, sorted as BuildKit sorts them."""

    ports: tuple[str, ...]


class Volume(Instruction):
    """VOLUME."""

    paths: tuple[str, ...]


class Cmd(Instruction):
    """CMD."""

    command: CommandLine


class Entrypoint(Instruction):
    """ENTRYPOINT."""

    command: CommandLine


class Shell(Instruction):
    """SHELL."""

    words: tuple[str, ...]


class StopSignal(Instruction):
    """STOPSIGNAL."""

    signal: str


class HealthCheck(Instruction):
    """HEALTHCHECK; `command` is None for NONE. The options are in `flags`."""

    command: CommandLine | None


class Maintainer(Instruction):
    """MAINTAINER."""

    maintainer: str


class OnBuild(Instruction):
    """ONBUILD: `expression` is the trigger's text, `trigger` what it means."""

    expression: str
    trigger: Command


Command = (
    Arg
    | Env
    | Label
    | Run
    | Copy
    | Workdir
    | User
    | Expose
    | Volume
    | Cmd
    | Entrypoint
    | Shell
    | StopSignal
    | HealthCheck
    | Maintainer
    | OnBuild
)


class Stage(Record):
    """A FROM and what follows it; `index` counts from 0."""

    index: int
    start: From
    commands: tuple[Command, ...]


class Dockerfile(Record):
    """A parsed Dockerfile. `escape` is the escape character, `global_args` stand before FROM.

    `empty_continuations` are lines that a later version of the language will refuse.
    """

    source: SourceText
    directives: tuple[Directive, ...]
    escape: str
    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    empty_continuations: tuple[Span, ...] = ()

    def directive(self, name: str) -> Directive | None:
        """The directive of this name."""
        return next((found for found in self.directives if found.name == name), None)
