# SPDX-License-Identifier: Apache-2.0
"""Docker's flag syntax (pflag's): `--rm=false`, `-it`, values that begin with a dash, options that
end at the image name.

argparse would cost each start 10 ms, and takes a value for a flag, or drops it, by rules of its
own. Errors are LaminaErrors of kind USAGE, in pflag's words.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence
    from typing import NoReturn

REMAINDER = "..."  # as `nargs`: all that is left
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
    metavar: str | None = None
    help: str | None = None
    why: str = ""
    required: bool = False


class HelpWanted(Exception):
    """The command line asks for help: `parser` knows what there is to say."""

    def __init__(self, parser: Parser) -> None:
        super().__init__(parser.command)
        self.parser = parser


class Arguments:
    """The values, as attributes."""


class Parser:
    """The arguments of one command. `stops_at_positional` as for `run IMAGE ARGS...`."""

    def __init__(self, command: str, *, summary: str, usage: str) -> None:
        self.command = command
        self.summary = summary
        self.usage = usage
        self.stops_at_positional = False
        self.declared: list[Argument] = []
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
        """The parsed arguments.

        Raises:
            LaminaError: kind USAGE, or UNSUPPORTED for a flag that is refused.
            HelpWanted: `--help` is among them.
        """
        found = Arguments()
        values = found.__dict__
        for each in self.declared:
            default = each.default
            values.setdefault(each.dest, list(default) if isinstance(default, list) else default)
        words: list[str] = []  # positional
        at = 0
        while at < len(argv):
            word = argv[at]
            at += 1
            if word == "--":
                words += argv[at:]
                break
            if not is_option(word):
                words.append(word)
                if self.stops_at_positional:
                    words += argv[at:]
                    break
            elif word.startswith("--"):
                at = self._long(word, argv, at, values)
            else:
                at = self._short(word, argv, at, values)
        for each in self._options.values():
            if each.required and values[each.dest] is None:
                self._fail(f"flag {each.names[-1]} is required")
        self._place(words, values)
        return found  # type: ignore[return-value]  # attributes are all that is used

    def _add(self, argument: Argument) -> None:
        self.declared.append(argument)
        if argument.names[0].startswith("-"):
            for name in argument.names:
                self._options[name] = argument
        else:
            self._positionals.append(argument)

    def _long(self, word: str, argv: Sequence[str], at: int, values: dict[str, object]) -> int:
        """Read `--name`, its value from `argv[at]` if it is there; where to go on."""
        name, equals, value = word.partition("=")
        option = self._option(name, f"unknown flag: {name}")
        if not equals:
            if option.action == "true":
                value = "true"
            elif at < len(argv):
                value = argv[at]
                at += 1
            else:
                self._fail(f"flag needs an argument: {name}")
        self._set(option, value, values)
        return at

    def _short(self, word: str, argv: Sequence[str], at: int, values: dict[str, object]) -> int:
        """Read `-abc`: switches, of which the last letter may take a value; where to go on."""
        for place, letter in enumerate(word[1:], start=2):
            rest = word[place:]
            shown = f"{letter!r} in -{letter}{rest}"
            option = self._option(f"-{letter}", f"unknown shorthand flag: {shown}")
            if len(rest) > 1 and rest[0] == "=":
                self._set(option, rest[1:], values)
                break
            if option.action == "true":
                self._set(option, "true", values)
                continue
            if not rest:
                if at >= len(argv):
                    self._fail(f"flag needs an argument: {shown}")
                rest = argv[at]
                at += 1
            self._set(option, rest, values)
            break
        return at

    def _option(self, name: str, unknown: str) -> Argument:
        """The option of that name, which lamina has."""
        option = self._options.get(name)
        if option is None:
            if name in {"--help", "-h"}:
                raise HelpWanted(self)
            self._fail(unknown)
        if option.action == "refuse":
            raise LaminaError(f"{name} is not supported: {option.why}", kind=Kind.UNSUPPORTED)
        return option

    def _set(self, option: Argument, text: str, values: dict[str, object]) -> None:
        value: object = text
        if option.action == "true":
            if text not in TRUE and text not in FALSE:
                self._fail(_invalid(option, text, "not a boolean"))
            value = text in TRUE
        elif option.choices is not None and text not in option.choices:
            choices = ", ".join(f"'{each}'" for each in option.choices)
            self._fail(_invalid(option, text, f"choose from {choices}"))
        elif option.type is not None:
            try:
                value = option.type(text)
            except ValueError:
                self._fail(_invalid(option, text, "not a whole number"))
        if option.action == "append":
            so_far = values[option.dest]
            value = [*(so_far if isinstance(so_far, list) else ()), value]
        values[option.dest] = value

    def _place(self, words: list[str], values: dict[str, object]) -> None:
        """Give the words to the positionals: one to each, the rest to the last if it is open."""
        single = [each for each in self._positionals if each.nargs is None]
        last = self._positionals[-1] if len(self._positionals) > len(single) else None
        needed = len(single) + (last is not None and last.nargs == "+")
        if len(words) < needed:
            bound = "" if last is None else "at least "
            plural = "s" * (needed > 1)
            self._fail(f"'lamina {self.command}' requires {bound}{needed} argument{plural}")
        for each, word in zip(single, words, strict=False):
            self._set(each, word, values)
        rest = words[len(single) :]
        if last is None or last.nargs == "?":
            taken = 0 if last is None else 1
            if len(rest) > taken:
                self._fail(f"unexpected {rest[taken]!r}")
            if rest and last is not None:
                self._set(last, rest[0], values)
        elif rest or last.default is None:
            values[last.dest] = rest

    def _fail(self, message: str) -> NoReturn:
        raise LaminaError(message, kind=Kind.USAGE, hint=f"see 'lamina {self.command} --help'")


def _dest(names: tuple[str, ...]) -> str:
    longs = [name for name in names if name.startswith("--")]
    return (longs or names)[0].lstrip("-").replace("-", "_")


def _invalid(option: Argument, text: str, why: str) -> str:
    names = ", ".join(option.names)
    what = f'"{names}" flag' if option.names[0].startswith("-") else names
    return f'invalid argument "{text}" for {what}: {why}'


def is_option(word: str) -> bool:
    """Whether the word is written as one (a lone dash is not)."""
    return len(word) > 1 and word.startswith("-")
