# SPDX-License-Identifier: Apache-2.0
"""The table of commands with their arguments, for what is made from it: pages, completion, checks."""

from __future__ import annotations

from importlib import import_module

from lamina.cli.arguments import Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.cli.arguments import Argument
    from lamina.cli.helptext import Aliases, Commands


class Reference:
    """What there is to type; `commands` and `aliases` are the tables of `main`."""

    def __init__(self, commands: Commands, aliases: Aliases) -> None:
        self.commands = commands
        found = {name: name for name in commands}
        found |= {f"{group} {verb}": command for (group, verb), command in aliases.items()}
        # one or two words -> the command that they are
        self.spellings = dict(sorted(found.items()))

    def parser(self, command: str) -> Parser:
        """The arguments of a command."""
        module, summary, _ = self.commands[command]
        loaded = import_module(f"lamina.cli.{module}")
        parser = Parser(command, summary=summary, usage=loaded.USAGE)
        loaded.configure(parser)
        return parser


def flags_of(parser: Parser) -> list[Argument]:
    """The flags that work, sorted by name."""
    found = [
        each
        for each in parser.declared
        if each.names[0].startswith("-") and each.action != "refuse"
    ]
    return sorted(found, key=lambda each: each.dest)
