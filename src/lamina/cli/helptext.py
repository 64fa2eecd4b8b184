# SPDX-License-Identifier: Apache-2.0
"""The help texts of lamina, of a group of commands, of one command, laid out as Docker's."""

from __future__ import annotations

import textwrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lamina.cli.arguments import Argument, Parser

    Commands = Mapping[str, tuple[str, str, str]]  # as `main.COMMANDS`
    Aliases = Mapping[tuple[str, str], str]  # as `main.ALIASES`

SECTIONS = ("Common", "Management", "Build", "Container", "Image", "Registry")
GROUPS = {
    "builder": "manage builds",
    "buildx": "manage builds, by the names of Docker's plugin",
    "cache": "manage cache mounts",
    "container": "manage containers",
    "generate": "print what other programs need for containers",
    "image": "manage images",
    "network": "manage networks",
    "registry": "serve registries, look after their data",
    "system": "manage the store",
    "volume": "manage volumes",
}
_WIDTH = 100
_COLUMN = 32  # where the texts of a command's flags begin at most
_GLOBALS = (
    ("-D, --debug", "log to standard error what is done"),
    (
        "    --root DIR",
        "the store's directory (default: LAMINA_ROOT, else /var/lib/lamina for root)",
    ),
    ("-v, --version", "print the version"),
    ("    --help", "show this text, or the command's"),
)


def overview(commands: Commands) -> str:
    """What `lamina --help` prints."""
    sections: dict[str, list[tuple[str, str]]] = {name: [] for name in SECTIONS}
    for name, (_, summary, section) in commands.items():
        if " " not in name:
            sections[section].append((name, summary))
    sections["Management"] = sorted([*sections["Management"], *GROUPS.items()])
    column = max(len(name) for rows in sections.values() for name, _ in rows) + 4
    lines = ["Usage:  lamina [OPTIONS] COMMAND", ""]
    lines += ["Container images for Python people, with no daemon"]
    for name, rows in sections.items():
        lines += ["", f"{name} Commands:", *_table(rows, column)]
    lines += ["", "Global Options:", *_table(_GLOBALS, column)]
    lines += ["", "Run 'lamina COMMAND --help' for more information on a command."]
    return "\n".join(lines)


def verbs(group: str, commands: Commands, aliases: Aliases) -> dict[str, str]:
    """The command of each verb, sorted by verb; the first of those that mean one command."""
    found: dict[str, str] = {}
    for name in commands:
        if name.startswith(f"{group} "):
            found[name] = name.removeprefix(f"{group} ")
    for (of, verb), command in aliases.items():
        if of == group:
            found.setdefault(command, verb)
    return dict(sorted((verb, command) for command, verb in found.items()))


def group_help(group: str, commands: Commands, aliases: Aliases) -> str:
    """What `lamina GROUP --help` prints."""
    found = verbs(group, commands, aliases)
    rows = [(verb, commands[command][1]) for verb, command in found.items()]
    column = max(len(verb) for verb, _ in rows) + 4
    lines = [f"Usage:  lamina {group} COMMAND", "", _sentence(GROUPS[group]), ""]
    lines += ["Commands:", *_table(rows, column), ""]
    lines += [f"Run 'lamina {group} COMMAND --help' for more information on a command."]
    return "\n".join(lines)


def command_help(parser: Parser) -> str:
    """What `lamina COMMAND --help` prints."""
    shown = [each for each in parser.declared if each.action != "refuse" and each.help]
    arguments = [
        (each.metavar or each.dest, each.help or "") for each in shown if not _is_flag(each)
    ]
    flags = sorted((each for each in shown if _is_flag(each)), key=lambda each: each.dest)
    options = [(_names(each), _text(each)) for each in flags]
    options.append(("    --help", "show this text and exit"))
    widest = max(len(left) for left, _ in (*arguments, *options))
    column = min(widest + 4, _COLUMN)
    lines = [f"Usage:  lamina {parser.command} {parser.usage}".rstrip(), "", parser.summary]
    if arguments:
        lines += ["", "Arguments:", *_table(arguments, column)]
    lines += ["", "Options:", *_table(options, column)]
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _is_flag(argument: Argument) -> bool:
    return argument.names[0].startswith("-")


def _names(option: Argument) -> str:
    """`-e, --env ENV`, long names in one column."""
    shorts = [name for name in option.names if not name.startswith("--")]
    longs = [name for name in option.names if name.startswith("--")]
    names = ", ".join([*shorts, *longs])
    if not shorts:
        names = f"    {names}"
    if option.action == "true":
        return names
    if option.choices is not None:
        return f"{names} {{{','.join(each for each in option.choices if each)}}}"
    return f"{names} {option.metavar or option.dest.upper()}"


def _text(option: Argument) -> str:
    text = option.help or ""
    return f"{text} (default true)" if option.action == "true" and option.default else text


def _table(rows: Iterable[tuple[str, str]], column: int) -> list[str]:
    """Lines of two columns; a name too long for its own has its text on the next line."""
    lines: list[str] = []
    for left, right in rows:
        texts = textwrap.wrap(right, _WIDTH - column, break_on_hyphens=False) or [""]
        if len(left) + 4 > column:
            lines.append(f"  {left}")
        else:
            lines.append(f"  {left}".ljust(column) + texts.pop(0))
        lines += [" " * column + text for text in texts]
    return [line.rstrip() for line in lines]
