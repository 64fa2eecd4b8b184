# SPDX-License-Identifier: Apache-2.0
"""Write or check docs/coming-from-docker.md: every command and flag of Docker's, and lamina's answer.

What Docker has is docs/docker-cli.txt (scripts/docker_help.py); what lamina has is its own table of
commands; how a flag that works differs is DIFFERS. Without --write prints what is wrong; status 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lamina.cli import absent, main
from lamina.cli.helptext import GROUPS
from lamina.cli.reference import Reference
from lamina.errors import LaminaError

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "coming-from-docker.md"
parser_of = Reference(main.COMMANDS, main.ALIASES).parser
DOCKER = ROOT / "docs" / "docker-cli.txt"

# (command, flag) -> how lamina's differs; "" as flag: the command's own difference
DIFFERS = {
    ("run", "--network"): "`bridge`, `host` and `none`",
    ("run", "--restart"): "only `no`: there is no daemon, an init system restarts",
    ("run", "--log-driver"): "`json-file` and `none`",
    ("run", "--security-opt"): "`no-new-privileges` and `seccomp=`",
    ("run", "--volume"): "directories and files of this host, and anonymous volumes",
    ("run", "--runtime"): "a name or a path; a daemon's configuration is not needed",
    ("build", "--provenance"): "only `false`",
    ("build", "--sbom"): "only `false`",
    ("exec", ""): "a failure of lamina's own is status 1, as Docker's before the command runs",
    ("cp", ""): "of a container that does not run, a tmpfs is not there",
    ("rm", "--volumes"): "anonymous volumes go with their container in any case",
    ("info", ""): "describes this host: there is no daemon",
    ("version", ""): "one version: there is no server",
    ("images", "--tree"): "refused",
    ("login", ""): "the file is Docker's `config.json`; credential helpers are used",
}
for _name in [key for key in DIFFERS if key[0] == "run" and key[1] != "--detach"]:
    DIFFERS["create", _name[1]] = DIFFERS[_name]

_HEAD = """\
# Coming from Docker

Every command and flag of {version}, and what lamina makes of it. Written and checked by
`scripts/coming_from_docker.py`: edit that. Images, Dockerfiles and the layout of output are Docker's;
docs/dockerfile.md and docs/containers.md say where they differ. There is no daemon: what is called
`docker ...` by scripts, `alias docker=lamina` answers, and a flag that lamina has not is an error that
names it, never ignored.

Global flags: `--debug` and `--version` work; those that say where a daemon is are refused.

"""


def docker() -> tuple[str, dict[str, tuple[list[str], list[str]]]]:
    """The version, and command -> (its other names, its flags as written)."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    version, *lines = DOCKER.read_text(encoding="utf-8").splitlines()
    flags: list[str] = []
    for line in lines:
        if line.startswith("  "):
            flags.append(line.strip())
        elif line:
            name, _, others = line.partition(" = ")
            flags = []
            found[name] = (others.split(", ") if others else [], flags)
    return version.lstrip("# ").partition(":")[0], found


def lamina_command(name: str) -> str | None:
    """lamina's command for one of Docker's."""
    words = name.split()
    try:
        found, rest = main._find_command(words)
    except LaminaError:
        return None
    return None if rest and words[0] != "manifest" else found


def refusal(name: str) -> str | None:
    """What `lamina NAME` says, None if it does not know that Docker has it."""
    group, _, verb = name.rpartition(" ")
    in_group = group in GROUPS
    found = (
        absent.refusal(group, verb) if in_group else absent.refusal("", name.split(maxsplit=1)[0])
    )
    return None if found is None else found.hint or "not there"


def document(problems: list[str]) -> str:
    """The page; what must not be is added to `problems`."""
    version, commands = docker()
    parts = [_HEAD.format(version=version)]
    refused: list[str] = []
    for name, (others, flags) in commands.items():
        if name == "(global)":
            continue
        command = lamina_command(name)
        if command is None:
            why = refusal(name)
            if why is None:
                problems.append(f"`{name}` is neither a command nor refused by its name")
            refused.append(f"- `{name}`: {why}")
            continue
        parts += [_section(name, others, flags, command, problems), ""]
    parts += ["## Commands that are refused", "", *refused, ""]
    return "\n".join(parts)


def _section(
    name: str, others: list[str], flags: list[str], command: str, problems: list[str]
) -> str:
    problems += [f"`{o}` is not `{command}`" for o in others if lamina_command(o) != command]
    parser = parser_of(command)
    known = {each: option for option in parser.declared for each in option.names}
    works: list[str] = []
    differs: list[str] = []
    refused: list[str] = []
    for flag in flags:
        names = [word for word in flag.split() if word.startswith("-")]
        shown = ", ".join(f"`{each}`" for each in names)
        if names[-1] == "--help":
            continue
        missing = [each for each in names if each not in known]
        if missing:
            problems.append(f"`{name} {', '.join(missing)}` is neither taken nor refused")
            refused.append(f"- {shown}: unknown")
        elif known[names[-1]].action == "refuse":
            refused.append(f"- {shown}: refused, {known[names[-1]].why}")
        elif (name, names[-1]) in DIFFERS:
            differs.append(f"- {shown}: {DIFFERS[name, names[-1]]}")
        else:
            works.append(shown)
    title = f"## {name}" + (f" ({', '.join(others)})" if others else "")
    lines = [title, ""]
    if (name, "") in DIFFERS:
        lines.append(f"Differs: {DIFFERS[name, '']}.")
    lines.append("Works: " + (", ".join(works) or "it has no flags") + ".")
    if differs or refused:
        lines += ["", *differs, *refused]
    return "\n".join(lines)


def check() -> list[str]:
    """What is wrong, one sentence each."""
    problems: list[str] = []
    if not DOCUMENT.exists() or DOCUMENT.read_text(encoding="utf-8") != document(problems):
        problems.append("is not what it should be: run scripts/coming_from_docker.py --write")
    return problems


def script() -> int:
    if sys.argv[1:] == ["--write"]:
        DOCUMENT.write_text(document([]), encoding="utf-8")
    found = check()
    for line in found:
        print(f"{DOCUMENT.relative_to(ROOT)}: {line}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(script())
