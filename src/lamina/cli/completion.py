# SPDX-License-Identifier: Apache-2.0
"""Print the completion script of a shell."""

from __future__ import annotations

from lamina.cli.helptext import GROUPS
from lamina.cli.reference import Reference, flags_of
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from lamina.cli.arguments import Argument, Parser
    from lamina.cli.context import Context

USAGE = "bash|zsh|fish"
# whose words are names of containers, of those that run, of images
_CONTAINERS = frozenset(
    {"container inspect", "commit", "cp", "diff", "export", "inspect", "logs", "port", "rename"}
    | {"restart", "rm", "start", "wait"}
)
_RUNNING = frozenset({"attach", "exec", "kill", "pause", "stats", "stop", "top", "unpause"})
_IMAGES = frozenset(
    {"create", "history", "image inspect", "inspect", "push", "rmi", "run", "save", "tag"}
)
# asked when a name is completed; a store that does not answer must not hold up the shell
_ASK = {
    "containers": 'timeout 1 lamina ps -a --format "{{.Names}}" 2>/dev/null',
    "running": 'timeout 1 lamina ps --format "{{.Names}}" 2>/dev/null',
    "images": 'timeout 1 lamina images --format "{{.Repository}}:{{.Tag}}" 2>/dev/null',
}


class Completed(Record):
    """What follows a command: `kinds` of names, flags, and those that take a value."""

    kinds: tuple[str, ...]
    flags: tuple[Argument, ...]
    stops: bool

    def names(self, *, valued: bool) -> list[str]:
        """The spellings of flags, all or those with a value."""
        return [
            name
            for flag in self.flags
            if not valued or flag.action != "true"
            for name in flag.names
        ]


def configure(parser: Parser) -> None:
    parser.add_argument(
        "shell", choices=("bash", "zsh", "fish"), metavar="SHELL", help="whose script to print"
    )


def run(args: argparse.Namespace, context: Context) -> int:
    known = Known(Reference(*context.tables))
    context.print({"bash": bash, "zsh": zsh, "fish": fish}[args.shell](known))
    return 0


class Known:
    """All that may be typed: `table` has what follows one or two words after `lamina`, `firsts` the
    second words of each first one (none after a command without verbs).
    """

    def __init__(self, reference: Reference) -> None:
        made: dict[str, Completed] = {}
        for command in reference.commands:
            parser = reference.parser(command)
            kinds = (("containers", _CONTAINERS), ("running", _RUNNING), ("images", _IMAGES))
            made[command] = Completed(
                tuple(kind for kind, commands in kinds if command in commands),
                tuple(flags_of(parser)),
                parser.stops_at_positional,
            )
        self._reference = reference
        self.table = {typed: made[command] for typed, command in reference.spellings.items()}
        found: dict[str, list[str]] = {}
        for typed in self.table:
            first, _, second = typed.partition(" ")
            found.setdefault(first, [])
            if second:
                found[first].append(second)
        self.firsts = {first: " ".join(sorted(found[first])) for first in sorted(found)}

    def summary(self, typed: str) -> str:
        """What the command, or the group, is for."""
        command = self._reference.spellings.get(typed)
        return self._reference.commands[command][1] if command else GROUPS[typed]


def _cases(known: Known) -> Iterator[str]:
    """Lines of a `case` of sh for each command: it sets flags, valued, kinds, stops."""
    for typed, each in known.table.items():
        flags, valued = " ".join(each.names(valued=False)), " ".join(each.names(valued=True))
        yield f'    "{typed}") kinds="{" ".join(each.kinds)}" stops={int(each.stops)}'
        yield f'      flags="{flags} --help" valued=" {valued} " ;;'


def _choices(known: Known) -> Iterator[str]:
    """Lines of a `case` for each flag of which the values are known."""
    for typed, each in known.table.items():
        for flag in each.flags:
            values = " ".join(value for value in flag.choices or () if value)
            if values:
                names = "|".join(f'"{typed} {name}"' for name in flag.names)
                yield f'    {names}) values="{values}" ;;'


def _verbs(known: Known) -> Iterator[str]:
    for first, verbs in known.firsts.items():
        if verbs:
            yield f'    {first}) verbs="{verbs}" ;;'


# What bash and zsh share. It reads the words of the line from `words` (the last is being typed) and
# leaves what may stand there in `found`, or sets `files`.
_SHELL = """\
_lamina_find() {{
  local first="" command="" verbs="" kinds="" flags="" valued="" values="" stops=0 given=0 previous=""
  local word current="${{words[-1]}}"
  local -a rest
  found="" files=""
  rest=("${{words[@]:1:${{#words[@]}}-2}}")
  for word in "${{rest[@]}}"; do
    if [[ -z $first ]]; then
      if [[ $previous == --root ]]; then previous=""; continue; fi
      previous=$word
      [[ $word == -* ]] && continue
      first=$word command=$word previous=""
      _lamina_verbs "$first"
      _lamina_flags "$command"
      continue
    fi
    if [[ -n $verbs && $command == "$first" && " $verbs " == *" $word "* && $given == 0 ]]; then
      command="$first $word"
      _lamina_flags "$command"
      continue
    fi
    if [[ -n $previous ]]; then previous=""; continue; fi
    if [[ $word == -* ]]; then
      [[ $valued == *" $word "* ]] && previous=$word
    else
      given=$((given + 1))
    fi
  done
  if [[ -z $first ]]; then
    if [[ $previous == --root ]]; then files=1
    elif [[ $current == -* ]]; then found="--debug --root --version --help"
    else found="{first}"; fi
    return
  fi
  if [[ $stops == 1 && $given -gt 0 ]]; then files=1; return; fi
  if [[ -n $previous ]]; then
    _lamina_values "$command $previous"
    if [[ -n $values ]]; then found=$values; else files=1; fi
  elif [[ $current == -* ]]; then found=$flags
  elif [[ -n $verbs && $command == "$first" && -z $flags ]]; then found=$verbs
  else
    [[ -n $verbs && $command == "$first" ]] && found=$verbs
    [[ " $kinds " == *" containers "* ]] && found="$found $({containers})"
    [[ " $kinds " == *" running "* ]] && found="$found $({running})"
    [[ " $kinds " == *" images "* ]] && found="$found $({images})"
    [[ -z $kinds || $command == *cp ]] && files=1
  fi
}}
_lamina_verbs() {{
  case "$1" in
{verbs}
  esac
}}
_lamina_flags() {{
  case "$1" in
{cases}
  esac
}}
_lamina_values() {{
  case "$1" in
{choices}
  esac
}}
"""


def _shared(known: Known) -> str:
    return _SHELL.format(
        first=" ".join(known.firsts),
        verbs="\n".join(_verbs(known)),
        cases="\n".join(_cases(known)),
        choices="\n".join(_choices(known)),
        **_ASK,
    )


def bash(known: Known) -> str:
    """The script: `source <(lamina completion bash)`."""
    return f"""\
# bash completion of lamina: source <(lamina completion bash)
{_shared(known)}
_lamina() {{
  local found files current prefix
  local -a words
  # the line itself: bash breaks words at `:` and `=`, which are in names of images
  read -ra words <<<"${{COMP_LINE:0:COMP_POINT}}"
  [[ ${{COMP_LINE:0:COMP_POINT}} == *[[:space:]] ]] && words+=("")
  _lamina_find
  current=${{words[-1]}}
  mapfile -t COMPREPLY < <(compgen -W "$found" -- "$current")
  [[ -n $files ]] && mapfile -t -O "${{#COMPREPLY[@]}}" COMPREPLY < <(compgen -f -- "$current")
  [[ -n $files ]] && compopt -o filenames 2>/dev/null
  if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
    prefix=${{current%"${{current##*:}}"}}
    COMPREPLY=("${{COMPREPLY[@]#"$prefix"}}")
  fi
}}
complete -F _lamina lamina"""


def zsh(known: Known) -> str:
    """The script: a file `_lamina` in a directory of `fpath`, or `source <(lamina completion zsh)`."""
    return f"""\
#compdef lamina
# zsh completion of lamina: a file _lamina on fpath, or source <(lamina completion zsh)
{_shared(known)}
_lamina() {{
  emulate -L zsh
  setopt ksh_arrays
  local found files line=$words
  local -a typed
  typed=("${{words[@]:0:$CURRENT}}")
  local -a words
  words=("${{typed[@]}}")
  _lamina_find
  unsetopt ksh_arrays
  compadd -- ${{=found}}
  [[ -n $files ]] && _files
  return 0
}}
if [[ ${{zsh_eval_context[-1]}} == loadautofunc ]]; then _lamina "$@"
else compdef _lamina lamina; fi"""


def fish(known: Known) -> str:
    """The script: `lamina completion fish | source`."""
    lines = [
        "# fish completion of lamina: lamina completion fish | source",
        "function __lamina_at",
        "  set -l typed (commandline -opc)[2..]",
        "  set -l wanted (string split ' ' -- $argv[1])",
        "  test (count $typed) -ge (count $wanted); or return 1",
        "  test (string join ' ' -- $typed[1..(count $wanted)]) = $argv[1]",
        "end",
        "function __lamina_first",
        "  not string match -qv -- '-*' (commandline -opc)[2..]",
        "end",
        "complete -c lamina -f -n __lamina_first -l debug -s D -d 'log what is done'",
        "complete -c lamina -r -n __lamina_first -l root -d 'the directory of the store'",
    ]
    for first, verbs in known.firsts.items():
        lines.append(
            f"complete -c lamina -f -n __lamina_first -a {first} -d {_quoted(known.summary(first))}"
        )
        lines += [
            f"complete -c lamina -f -n \"__lamina_at '{first}'\" -a {verb}"
            f" -d {_quoted(known.summary(f'{first} {verb}'))}"
            for verb in verbs.split()
        ]
    for typed, each in known.table.items():
        at = f"-n \"__lamina_at '{typed}'\""
        lines += [f"complete -c lamina -f {at} -a '({_ASK[kind]})'" for kind in each.kinds]
        lines += [f"complete -c lamina {at} {_fish_flag(flag)}" for flag in each.flags]
    return "\n".join(lines)


def _fish_flag(flag: Argument) -> str:
    words = []
    for name in flag.names:
        bare = name.lstrip("-")
        words.append(f"-l {bare}" if name.startswith("--") else f"-s {bare}")
    if flag.choices is not None:
        words.append(f"-x -a '{' '.join(value for value in flag.choices if value)}'")
    elif flag.action != "true":
        words.append("-r")
    return " ".join([*words, "-d", _quoted(flag.help or "")])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
