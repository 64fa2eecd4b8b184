# SPDX-License-Identifier: Apache-2.0
"""Write the man pages, of lamina and of each command, to a directory: `man.py build/man`."""

from __future__ import annotations

import sys
from pathlib import Path

from lamina.cli.helptext import GROUPS, SECTIONS
from lamina.cli.main import ALIASES, COMMANDS
from lamina.cli.reference import Reference, flags_of
from lamina.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.cli.arguments import Argument

REFERENCE = Reference(COMMANDS, ALIASES)


def escaped(text: str) -> str:
    """Text as roff reads it: no escape, no hyphen that may break, no line that is a request."""
    plain = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain


def _head(name: str) -> str:
    return f'.TH "{name.upper()}" "1" "" "lamina {__version__}" "lamina"'


def _flag(flag: Argument) -> str:
    value = ""
    if flag.action != "true":
        value = f" \\fI{escaped(flag.metavar or flag.dest.upper())}\\fR"
    names = ", ".join(f"\\fB{escaped(name)}\\fR" for name in sorted(flag.names, key=len))
    text = escaped(flag.help or "")
    if flag.choices:
        text += f" ({escaped(', '.join(value for value in flag.choices if value))})"
    return f".TP\n{names}{value}\n{text or chr(92) + '&'}"


def page(command: str) -> str:
    """The page of a command."""
    parser = REFERENCE.parser(command)
    name = f"lamina-{command.replace(' ', '-')}"
    summary = COMMANDS[command][1]
    lines = [_head(name), ".SH NAME", f"{escaped(name)} \\- {escaped(summary)}", ".SH SYNOPSIS"]
    for usage in parser.usage.split("\n"):
        text = usage.strip().removeprefix("lamina ").removeprefix(f"{command} ")
        lines += [f".B lamina {escaped(command)}", escaped(text), ".br"]
    lines += [".SH OPTIONS", *(_flag(flag) for flag in flags_of(parser))]
    lines += [".TP\n\\fB\\-\\-help\\fR\nshow the text of the command"]
    refused = [each for each in parser.declared if each.action == "refuse"]
    if refused:
        lines += [".SH REFUSED", "Docker's flags that are errors here:"]
        lines += [
            f".TP\n{', '.join(f'{chr(92)}fB{escaped(n)}{chr(92)}fR' for n in each.names)}\n"
            f"{escaped(each.why)}"
            for each in refused
        ]
    others = [typed for typed, of in REFERENCE.spellings.items() if of == command != typed]
    if others:
        lines += [".SH OTHER NAMES", escaped(", ".join(f"lamina {each}" for each in others))]
    return "\n".join([*lines, ".SH SEE ALSO", ".BR lamina (1)", ""])


def overview() -> str:
    """The page of lamina itself."""
    lines = [_head("lamina"), ".SH NAME", "lamina \\- container images, without a daemon"]
    lines += [".SH SYNOPSIS", ".B lamina", "[\\fB\\-\\-root\\fR \\fIDIR\\fR] \\fICOMMAND\\fR ..."]
    for section in SECTIONS:
        lines += [f'.SH "{section.upper()} COMMANDS"']
        rows = [
            (name, summary)
            for name, (_, summary, where) in COMMANDS.items()
            if where == section or (not where and section == "Management")
        ]
        for name, summary in rows:
            lines += [
                f".TP\n.BR lamina\\-{escaped(name.replace(' ', '-'))} (1)\n{escaped(summary)}"
            ]
    lines += [".SH GROUPS"]
    lines += [f".TP\n\\fBlamina {name}\\fR\n{escaped(text)}" for name, text in GROUPS.items()]
    return "\n".join([*lines, ""])


def write(folder: Path) -> None:
    """Write all pages into the folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lamina.1").write_text(overview(), encoding="utf-8")
    for command in COMMANDS:
        path = folder / f"lamina-{command.replace(' ', '-')}.1"
        path.write_text(page(command), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
