# SPDX-License-Identifier: Apache-2.0
"""Build checks: findings about a Dockerfile that builds but should be written differently.

Names, messages and addresses are BuildKit's (`frontend/dockerfile/linter`). What the syntax tree
alone shows is found by `check_file`; what needs values is reported by lowering, through the same
`Checker`. A new rule is one entry in `RULES` and one call of `Checker.report`.
"""

from __future__ import annotations

from lamina.dockerfile import ast
from lamina.dockerfile.words import printable, suggest
from lamina.errors import SourceError
from lamina.events import Diagnostic, Severity
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lamina.spec.span import Span

_URL = "https://docs.docker.com/go/dockerfile/rule/"
RULES: dict[str, str] = {
    "StageNameCasing": "stage-name-casing",
    "FromAsCasing": "from-as-casing",
    "NoEmptyContinuation": "no-empty-continuation",
    "ConsistentInstructionCasing": "consistent-instruction-casing",
    "DuplicateStageName": "duplicate-stage-name",
    "ReservedStageName": "reserved-stage-name",
    "JSONArgsRecommended": "json-args-recommended",
    "MaintainerDeprecated": "maintainer-deprecated",
    "UndefinedArgInFrom": "undefined-arg-in-from",
    "WorkdirRelativePath": "workdir-relative-path",
    "UndefinedVar": "undefined-var",
    "MultipleInstructionsDisallowed": "multiple-instructions-disallowed",
    "LegacyKeyValueFormat": "legacy-key-value-format",
    "InvalidBaseImagePlatform": "",
    "RedundantTargetPlatform": "redundant-target-platform",
    "SecretsUsedInArgOrEnv": "secrets-used-in-arg-or-env",
    "InvalidDefaultArgInFrom": "invalid-default-arg-in-from",
    "FromPlatformFlagConstDisallowed": "from-platform-flag-const-disallowed",
    "CopyIgnoredFile": "copy-ignored-file",
    "InvalidDefinitionDescription": "invalid-definition-description",
    "ExposeProtoCasing": "expose-proto-casing",
    "ExposeInvalidFormat": "expose-invalid-format",
}
"""Rule name -> last part of its documentation's address."""

DESCRIPTIONS: dict[str, str] = {
    "StageNameCasing": "Stage names should be lowercase",
    "FromAsCasing": "The 'as' keyword should match the case of the 'from' keyword",
    "NoEmptyContinuation": "Empty continuation lines will become errors in a future release",
    "ConsistentInstructionCasing": (
        "All commands within the Dockerfile should use the same casing (either upper or lower)"
    ),
    "DuplicateStageName": "Stage names should be unique",
    "ReservedStageName": "Reserved words should not be used as stage names",
    "JSONArgsRecommended": (
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior "
        "related to OS signals"
    ),
    "MaintainerDeprecated": (
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author"
    ),
    "UndefinedArgInFrom": "FROM command must use declared ARGs",
    "WorkdirRelativePath": (
        "Relative workdir without an absolute workdir declared within the build can have "
        "unexpected results if the base image changes"
    ),
    "UndefinedVar": "Variables should be defined before their use",
    "MultipleInstructionsDisallowed": (
        "Multiple instructions of the same type should not be used in the same stage"
    ),
    "LegacyKeyValueFormat": "Legacy key/value format with whitespace separator should not be used",
    "InvalidBaseImagePlatform": "Base image platform does not match expected target platform",
    "RedundantTargetPlatform": (
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant "
        "as this is the default behavior"
    ),
    "SecretsUsedInArgOrEnv": "Sensitive data should not be used in the ARG or ENV commands",
    "InvalidDefaultArgInFrom": (
        "Default value for global ARG results in an empty or invalid base image name"
    ),
    "FromPlatformFlagConstDisallowed": "FROM --platform flag should not use a constant value",
    "CopyIgnoredFile": "Attempting to Copy file that is excluded by .dockerignore",
    "InvalidDefinitionDescription": (
        "Comment for build stage or argument should follow the format: "
        "`# <arg/stage name> <description>`. If this is not intended to be a description comment, "
        "add an empty line or comment between the instruction and the comment."
    ),
    "ExposeProtoCasing": "Protocol in EXPOSE instruction should be lowercase",
    "ExposeInvalidFormat": (
        "IP address and host-port mapping should not be used in EXPOSE instruction. "
        "This will become an error in a future release"
    ),
}
"""Rule name -> what it asks for, in BuildKit's words (JSON of `--call=check`)."""

EXPERIMENTAL = frozenset({"CopyIgnoredFile", "InvalidDefinitionDescription"})
"""Rules that run only if `# check=experimental=` names them (or `all`)."""

_RESERVED = frozenset({"context", "scratch"})
_SECRET = frozenset(
    "apikey auth credential credentials key password pword passwd secret token".split()  # noqa: SIM905
)
_NOT_SECRET = frozenset({"public", "file", "version"})


class CheckOptions(Record):
    """`# check=skip=A,B;error=true;experimental=C`. `all` in a set stands for every rule."""

    skip: frozenset[str] = frozenset()
    error: bool = False
    experimental: frozenset[str] = frozenset()

    @staticmethod
    def parse(text: str, *, span: Span | None) -> CheckOptions:
        """The options in the directive's value.

        Raises:
            SourceError: an unknown option, or a value that is not a boolean.
        """
        skip: frozenset[str] = frozenset()
        experimental: frozenset[str] = frozenset()
        error = False
        for part in text.split(";") if text.strip() else ():
            name, equals, value = (piece.strip() for piece in part.partition("="))
            names = frozenset(word.strip() for word in value.split(",") if word.strip())
            if not equals or name not in {"skip", "error", "experimental"}:
                raise SourceError(f'invalid check option "{part.strip()}"', span=span)
            if name == "skip":
                skip = names
            elif name == "experimental":
                experimental = names
            elif value.lower() in {"1", "t", "true", "0", "f", "false"}:
                error = value.lower() in {"1", "t", "true"}
            else:
                raise SourceError(f'failed to parse check option "{part.strip()}"', span=span)
        return CheckOptions(skip, error, experimental)


class Checker:
    """Collects diagnostics, in order, each finding once; knows which rules are wanted."""

    def __init__(self, options: CheckOptions) -> None:
        self.options = options
        self._found: dict[tuple[str, str, Span], Diagnostic] = {}

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What was found so far."""
        return tuple(self._found.values())

    def wants(self, rule: str) -> bool:
        """Whether findings of the rule are kept."""
        skip, experimental = self.options.skip, self.options.experimental
        if rule in skip or "all" in skip:
            return False
        return rule not in EXPERIMENTAL or rule in experimental or "all" in experimental

    def report(self, rule: str, message: str, span: Span) -> None:
        """Keep a finding, unless the file asks to skip its rule."""
        if not self.wants(rule):
            return
        from lamina.redaction import redacted

        page = RULES[rule]
        message = redacted(printable(message))
        severity = Severity.ERROR if self.options.error else Severity.WARNING
        url = f"{_URL}{page}/" if page else ""
        self._found.setdefault(
            (rule, message, span), Diagnostic(severity, rule, message, span, url)
        )

    def raise_if_asked(self) -> None:
        """Raise SourceError if `error=true` is set and something was found."""
        if not self.options.error or not self._found:
            return
        rules = sorted({found.rule for found in self._found.values()})
        first = next(iter(self._found.values()))
        raise SourceError(
            f"lint violation found for rules: {', '.join(rules)}",
            span=first.span,
            hint=first.message,
        )

    def undefined_variables(self, names: Iterable[str], known: Iterable[str], span: Span) -> None:
        """UndefinedVar for each name, with the nearest known variable."""
        if not self.wants("UndefinedVar"):
            return
        options = list(known)
        for name in names:
            nearest = suggest(name, options)
            hint = f" (did you mean ${nearest}?)" if nearest else ""
            self.report("UndefinedVar", f"Usage of undefined variable '${name}'{hint}", span)

    def undefined_from_args(self, names: Iterable[str], known: Iterable[str], span: Span) -> None:
        """UndefinedArgInFrom for each name that is not known."""
        options = list(known)
        for name in names:
            if name in options:
                continue
            nearest = suggest(name, options)
            hint = f" (did you mean {nearest}?)" if nearest else ""
            self.report("UndefinedArgInFrom", f"FROM argument '{name}' is not declared{hint}", span)

    def secret_name(self, instruction: str, name: str, span: Span) -> None:
        """SecretsUsedInArgOrEnv if the name looks like that of a secret."""
        words = name.lower().split("_")
        if not _SECRET.isdisjoint(words) and _NOT_SECRET.isdisjoint(words):
            self.report(
                "SecretsUsedInArgOrEnv",
                f'Do not use ARG or ENV instructions for sensitive data ({instruction} "{name}")',
                span,
            )

    def legacy_pairs(self, command: ast.Env | ast.Label) -> None:
        """LegacyKeyValueFormat for `ENV name value`."""
        if any(pair.legacy for pair in command.pairs):
            name = command.keyword
            self.report(
                "LegacyKeyValueFormat",
                f'"{name} key=value" should be used instead of legacy "{name} key value" format',
                command.span,
            )

    def ports(self, words: Iterable[str], span: Span) -> None:
        """ExposeProtoCasing and ExposeInvalidFormat, on expanded port words."""
        for word in words:
            protocol = word.partition("/")[2]
            if protocol != protocol.lower():
                self.report(
                    "ExposeProtoCasing",
                    f"Defined protocol '{word}' in EXPOSE instruction should be lowercase",
                    span,
                )
            if ":" in word:
                self.report(
                    "ExposeInvalidFormat",
                    "EXPOSE instruction should not define an IP address or host-port mapping, "
                    f"found '{word}'",
                    span,
                )


def check_file(dockerfile: ast.Dockerfile, checker: Checker) -> None:
    """Report what the syntax tree alone shows, for every stage, needed or not."""
    for span in dockerfile.empty_continuations:
        checker.report("NoEmptyContinuation", "Empty continuation line", span)
    for arg in dockerfile.global_args:
        _check_description(arg, "ARG", [name for name, _ in arg.args], checker)
    for stage in dockerfile.stages:
        _check_from(stage.start, checker)
        for command in stage.commands:
            if isinstance(command, ast.Maintainer):
                checker.report(
                    "MaintainerDeprecated",
                    "Maintainer instruction is deprecated in favor of using label",
                    command.span,
                )
            elif isinstance(command, ast.Arg):
                _check_description(command, "ARG", [name for name, _ in command.args], checker)
    _check_stage_names(dockerfile, checker)
    _check_casing(dockerfile, checker)


def _check_from(start: ast.From, checker: Checker) -> None:
    if not start.name:
        return
    if start.as_name != start.name:
        checker.report(
            "StageNameCasing", f"Stage name '{start.as_name}' should be lowercase", start.span
        )
    if start.keyword.islower() != start.as_keyword.islower():
        checker.report(
            "FromAsCasing",
            f"'{start.as_keyword}' and '{start.keyword}' keywords' casing do not match",
            start.span,
        )
    _check_description(start, "FROM", [start.name], checker)


def _check_description(
    command: ast.From | ast.Arg, instruction: str, names: list[str], checker: Checker
) -> None:
    if not command.comments or command.comments[-1].split(" ")[0] in names:
        return
    example = names[0] if len(names) == 1 else "<arg_key>"
    checker.report(
        "InvalidDefinitionDescription",
        f"Comment for {instruction} should follow the format: `# {example} <description>`",
        command.span,
    )


def _check_stage_names(dockerfile: ast.Dockerfile, checker: Checker) -> None:
    seen: set[str] = set()
    for stage in dockerfile.stages:
        name = stage.start.name
        if name in _RESERVED:
            checker.report(
                "ReservedStageName",
                f'Stage name should not use the same name as reserved stage "{name}"',
                stage.start.span,
            )
        if name and name in seen:
            checker.report(
                "DuplicateStageName",
                f'Duplicate stage name "{name}", stage names should be unique',
                stage.start.span,
            )
        seen.add(name)


def _check_casing(dockerfile: ast.Dockerfile, checker: Checker) -> None:
    lower = upper = 0
    for instruction in _instructions(dockerfile):
        lower += instruction.keyword.islower()
        upper += instruction.keyword.isupper()
    majority = "lowercase" if lower > upper else "uppercase"
    for instruction in _instructions(dockerfile):
        keyword = instruction.keyword
        if keyword != (keyword.lower() if lower > upper else keyword.upper()):
            checker.report(
                "ConsistentInstructionCasing",
                f"Command '{keyword}' should match the case of the command majority ({majority})",
                instruction.span,
            )


def _instructions(dockerfile: ast.Dockerfile) -> Iterator[ast.Instruction]:
    for stage in dockerfile.stages:
        yield stage.start
        yield from stage.commands
