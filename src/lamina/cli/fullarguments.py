# SPDX-License-Identifier: Apache-2.0
"""Docker's flag syntax on argparse: `--rm=false`, `-it`, and options that end at the image name.

Errors are LaminaErrors of kind USAGE with Docker's words (`unknown flag: --x`). `cli.arguments`
comes here for help, errors, and whatever it leaves to argparse.
"""

from __future__ import annotations

import argparse

from lamina.cli.arguments import FALSE, TRUE, is_option
from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from lamina.cli.arguments import Argument


class FullParser(argparse.ArgumentParser):
    """An ArgumentParser for one command. `stops_at_positional` as for `run IMAGE ARGS...`."""

    def __init__(self, command: str, *, summary: str, usage: str) -> None:
        super().__init__(
            prog=f"lamina {command}",
            usage=f"lamina {command} {usage}",
            description=summary,
            allow_abbrev=False,
            add_help=False,
            formatter_class=_help_formatter,
        )
        self.command = command
        self.stops_at_positional = False
        self.add_argument("--help", action="help", help="show this text and exit")

    def declare(self, argument: Argument) -> None:
        """Add what `Parser.add_argument` was given."""
        options: dict[str, Any] = {
            "default": argument.default,
            "help": argument.help,
            "metavar": argument.metavar,
        }
        for name in ("type", "choices", "nargs", "const"):
            if getattr(argument, name) is not None:
                options[name] = getattr(argument, name)
        if argument.names[0].startswith("-"):
            options |= {"dest": argument.dest, "required": argument.required}
        self.add_argument(*argument.names, action=argument.action, **options)

    def switch(self, *names: str, help: str, default: bool = False) -> None:
        """A flag without value that also takes `--name=true|false`."""
        action = self.add_argument(*names, action="store_true", default=default, help=help)
        if default:  # `_normalised` turns `--name=0` into this one
            off = [f"{name}=false" for name in names if name.startswith("--")]
            self.add_argument(*off, action="store_false", dest=action.dest, help=argparse.SUPPRESS)

    def refuse(self, *names: str, why: str) -> None:
        """A flag of Docker's that lamina does not do: an error that names it and says why."""
        self.add_argument(*names, action=_Refused, nargs="?", help=argparse.SUPPRESS, why=why)

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """The parsed arguments. Raises LaminaError of kind USAGE."""
        return self.parse_args(self._normalised(list(argv)))

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            word = unknown.split()[0]
            message = f"unknown flag: {word}" if word.startswith("-") else f"unexpected {word!r}"
        raise LaminaError(message, kind=Kind.USAGE, hint=f"see 'lamina {self.command} --help'")

    def _normalised(self, argv: list[str]) -> list[str]:
        """`--switch=true` becomes `--switch`, `--switch=false` disappears; other words stay."""
        actions = self._option_string_actions
        words: list[str] = []
        position = 0
        while position < len(argv):
            word = argv[position]
            position += 1
            if word == "--" or (self.stops_at_positional and not is_option(word)):
                words.append(word)
                break
            name, equals, value = word.partition("=")
            self._check_known(word)
            action = actions.get(name)
            if isinstance(action, argparse._StoreTrueAction) and equals:
                if value in TRUE:
                    words.append(name)
                elif value in FALSE and action.default:
                    words.append(f"{name}=false")
                elif value not in FALSE:
                    self.error(f'invalid argument "{value}" for "{name}" flag: not a boolean')
                continue
            words.append(word)
            if self._takes_next(word) and position < len(argv):
                value = argv[position]
                position += 1
                # joined, so that a value may begin with a dash (`-e -x`)
                words[-1] = f"{word}={value}" if word.startswith("--") else word + value
        return words + argv[position:]

    def _check_known(self, word: str) -> None:
        """Refuse an unknown flag before argparse complains of something else that is missing."""
        actions = self._option_string_actions
        if not is_option(word):
            return
        if word.startswith("--"):
            name = word.partition("=")[0]
            if name not in actions:
                self.error(f"unknown flag: {name}")
            return
        for letter in word[1:]:
            action = actions.get(f"-{letter}")
            if action is None:
                self.error(f"unknown shorthand flag: {letter!r} in {word}")
            if action.nargs != 0:
                return

    def _takes_next(self, word: str) -> bool:
        actions = self._option_string_actions
        if word.startswith("--"):
            action = actions.get(word)
            return action is not None and action.nargs is None
        if not is_option(word):
            return False
        for place, letter in enumerate(word[1:], start=1):
            action = actions.get(f"-{letter}")
            if action is None:
                return False
            if action.nargs is None:
                return place == len(word) - 1
        return False


class _Refused(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, why: str, **rest: object) -> None:
        super().__init__(option_strings, dest, nargs="?", help=argparse.SUPPRESS)
        self.why = why

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        raise LaminaError(f"{option_string} is not supported: {self.why}", kind=Kind.UNSUPPORTED)


def _help_formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, max_help_position=32, width=100)
