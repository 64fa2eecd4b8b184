# SPDX-License-Identifier: Apache-2.0
"""Docker's flag syntax: what a command declares, and the plain command lines parsed without argparse.

argparse costs 10 ms of every start. `Parser` records declarations and reads the lines that leave no
question; for anything else (help, an error, `--`, positionals on both sides of an option) it replays
the declarations on `fullarguments.FullParser`, whose answer counts. So the two can differ only
where this one answers: tests/property/cli/test_arguments.py compares them.
"""

from __future__ import annotations

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from lamina.cli.fullarguments import FullParser

REMAINDER = "..."  # argparse.REMAINDER
TRUE = frozenset({"true", "1", "t", "T", "TRUE", "True"})  # Go's strconv.ParseBool
FALSE = frozenset({"false", "0", "f", "F", "FALSE", "False"})


class Argument(Record):
    """A declared argument. `action` is store, append, true (a switch) or refuse."""

    names: tuple[str, ...]
    dest: str
    action: str = "store"
    default: object = None
    type: type[int] | None = None
    choices: tuple[str, ...] | None = None
    nargs: str | None = None
    const: str | None = None
    metavar: str | None = None
    help: str | None = None
    why: str = ""
    required: bool = False


class _Unclear(Exception):
    """The command line is for argparse."""


class Arguments:
    """The values, as attributes."""


class Parser:
    """The arguments of one command. `stops_at_positional` as for `run IMAGE ARGS...`."""

    def __init__(self, command: str, *, summary: str, usage: str) -> None:
        self.command = command
        self.stops_at_positional = False
        self._summary = summary
        self._usage = usage
        self._declared: list[Argument] = []
        self._options: dict[str, Argument] = {}
        self._positionals: list[Argument] = []

    def add_argument(
        self,
        *names: str,
        action: str = "store",
        default: object = None,
        type: type[int] | None = None,
        choices: Iterable[str] | None = None,
        nargs: str | None = None,
        const: str | None = None,
        dest: str = "",
        metavar: str | None = None,
        help: str | None = None,
        required: bool = False,
    ) -> None:
        """An option with a value (`action` append: each time it is given) or a positional."""
        self._add(
            Argument(
                names,
                dest or _dest(names),
                action,
                default,
                type,
                None if choices is None else tuple(choices),
                nargs,
                const,
                metavar,
                help,
                required=required,
            )
        )

    def switch(self, *names: str, help: str, default: bool = False) -> None:
        """A flag without value that also takes `--name=true|false`."""
        self._add(Argument(names, _dest(names), "true", default, help=help))

    def refuse(self, *names: str, why: str) -> None:
        """A flag of Docker's that lamina does not do: an error that names it and says why."""
        self._add(Argument(names, _dest(names), "refuse", why=why))

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """The parsed arguments. Raises LaminaError of kind USAGE."""
        try:
            return self._plain(list(argv))  # type: ignore[return-value]  # attributes are all that is used
        except _Unclear:
            return self._full().parse(argv)

    def _add(self, argument: Argument) -> None:
        self._declared.append(argument)
        if argument.names[0].startswith("-"):
            for name in argument.names:
                self._options[name] = argument
        else:
            self._positionals.append(argument)

    def _full(self) -> FullParser:
        from lamina.cli.fullarguments import FullParser

        full = FullParser(self.command, summary=self._summary, usage=self._usage)
        full.stops_at_positional = self.stops_at_positional
        for each in self._declared:
            if each.action == "true":
                full.switch(*each.names, help=each.help or "", default=bool(each.default))
            elif each.action == "refuse":
                full.refuse(*each.names, why=each.why)
            else:
                full.declare(each)
        return full

    def _plain(self, argv: list[str]) -> Arguments:
        found = Arguments()
        values = found.__dict__
        for each in self._declared:
            default = each.default
            values.setdefault(each.dest, list(default) if isinstance(default, list) else default)
        words: list[str] = []  # positional
        ended = -1  # where the last of them stood: they must be neighbours
        at = 0
        while at < len(argv):
            word = argv[at]
            if is_option(word):
                at = self._option(word, argv, at + 1, values)
            elif self.stops_at_positional:
                words = argv[at:]
                break
            elif words and at != ended + 1:
                raise _Unclear
            else:
                words.append(word)
                ended = at
                at += 1
        if any(each.required and values[each.dest] is None for each in self._declared):
            raise _Unclear
        self._place(words, values)
        return found

    def _option(self, word: str, argv: list[str], at: int, values: dict[str, object]) -> int:
        """Read the option `word`, its value from `argv[at]` if it is there; where to go on."""
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            argument = self._options.get(name)
            if argument is None:
                raise _Unclear
            if argument.action == "true":
                if equals and value not in TRUE and value not in FALSE:
                    raise _Unclear
                if not equals or value in TRUE:
                    values[argument.dest] = True
                elif argument.default:
                    values[argument.dest] = False
                return at
            if not equals:
                value, at = _next(argv, at)
            _set(argument, value, values)
            return at
        for place, letter in enumerate(word[1:], start=2):
            argument = self._options.get(f"-{letter}")
            if argument is None:
                raise _Unclear
            if argument.action == "true":
                values[argument.dest] = True
                continue
            value = word[place:]
            if not value:
                value, at = _next(argv, at)
            if not value or value.startswith("="):
                raise _Unclear
            _set(argument, value, values)
            break
        return at

    def _place(self, words: list[str], values: dict[str, object]) -> None:
        declared = self._positionals
        single = [each for each in declared if each.nargs is None]
        if declared[: len(single)] != single or len(declared) > len(single) + 1:
            raise _Unclear
        if any(each.type or each.choices for each in declared) or len(words) < len(single):
            raise _Unclear
        for each, word in zip(single, words, strict=False):
            values[each.dest] = word
        rest = words[len(single) :]
        if len(declared) == len(single):
            if rest:
                raise _Unclear
            return
        last = declared[-1]
        if self.stops_at_positional and last.nargs == REMAINDER:
            if single and any(is_option(word) for word in words[: len(single)]):
                raise _Unclear
            values[last.dest] = rest
        elif self.stops_at_positional and any(is_option(word) for word in words):
            raise _Unclear
        elif last.nargs == "?" and len(rest) <= 1:
            if rest:
                values[last.dest] = rest[0]
        elif last.nargs in {"*", "+"} and rest:
            values[last.dest] = rest
        elif last.nargs == "*" and last.default is None:
            values[last.dest] = []
        else:
            raise _Unclear


def _dest(names: tuple[str, ...]) -> str:
    longs = [name for name in names if name.startswith("--")]
    return (longs or names)[0].lstrip("-").replace("-", "_")


def _next(argv: list[str], at: int) -> tuple[str, int]:
    if at >= len(argv):
        raise _Unclear
    return argv[at], at + 1


def _set(argument: Argument, value: str, values: dict[str, object]) -> None:
    if argument.action not in {"store", "append"} or argument.nargs is not None:
        raise _Unclear
    if value == "--" or (argument.choices is not None and value not in argument.choices):
        raise _Unclear  # argparse drops a value of two dashes
    found: object = value
    if argument.type is not None:
        try:
            found = argument.type(value)
        except ValueError:
            raise _Unclear from None
    if argument.action == "append":
        so_far = values[argument.dest]
        values[argument.dest] = [*(so_far if isinstance(so_far, list) else ()), found]
    else:
        values[argument.dest] = found


def is_option(word: str) -> bool:
    """Whether the word is written as one (a lone dash is not)."""
    return len(word) > 1 and word.startswith("-")
