# SPDX-License-Identifier: Apache-2.0
"""Write what the `docker` client on PATH says it takes: `docker_help.py > docs/docker-cli.txt`.

One command a paragraph: its name, then ` = ` and its other names, then a line for each flag, with the
kind of its value. Needs no daemon. `build` has the
flags of the client's old builder and those of the plugin buildx, which Docker installs with it.
"""

from __future__ import annotations

import re
import subprocess

_FLAG = re.compile(r"^ {2,6}(?:(-\w), )?(--[a-z0-9][a-z0-9-]*)(?: ([A-Za-z][\w<>|,-]*))?(?:  |$)")
_COMMAND = re.compile(r"^  ([a-z][a-z-]*)\*?  ")
# of `docker buildx build`, 0.24: its reference, docs/reference/buildx_build.md
_BUILDX = """--add-host strings, --allow stringArray, --annotation stringArray, --attest stringArray,
--build-arg stringArray, --build-context stringArray, --builder string, --cache-from stringArray,
--cache-to stringArray, --call string, --cgroup-parent string, --check, -D --debug, -f --file string,
--iidfile string, --label stringArray, --load, --metadata-file string, --network string, --no-cache,
--no-cache-filter stringArray, -o --output stringArray, --platform stringArray, --progress string,
--provenance string, --pull, --push, -q --quiet, --sbom string, --secret stringArray,
--shm-size bytes, --ssh stringArray, -t --tag stringArray, --target string, --ulimit ulimit"""


def help_of(words: tuple[str, ...]) -> str:
    return subprocess.run(
        ["docker", *words, "--help"], capture_output=True, text=True, check=True
    ).stdout


def main() -> None:
    version = subprocess.run(["docker", "--version"], capture_output=True, text=True, check=True)
    found: dict[str, tuple[list[str], list[str]]] = {}
    todo: list[tuple[str, ...]] = [()]
    while todo:
        words = todo.pop(0)
        lines = help_of(words).splitlines()
        flags, names, commands, section = [], [" ".join(words)], [], ""
        for line in lines:
            if line.endswith(":") and not line.startswith(" "):
                section = line
            elif section == "Aliases:" and line.strip():
                names = [name.strip().removeprefix("docker ") for name in line.split(",")]
                section = ""
            elif section.endswith("Options:") and (match := _FLAG.match(line)):
                flags.append(" ".join(part for part in match.groups() if part))
            elif section.endswith("Commands:") and (match := _COMMAND.match(line)):
                commands.append((*words, match[1]))
        todo += commands
        first = min(names, key=lambda name: (name.count(" "), len(name)))
        if not commands or not words:
            others = sorted(set(names) - {first})
            found.setdefault(first, (others, flags))
    others, flags = found["build"]
    known = {flag.split("--")[1].split()[0] for flag in flags}
    for flag in re.split(r",\s+", _BUILDX):
        if flag.split("--")[1].split()[0] not in known:
            flags.append(flag)
    print(f"# {version.stdout.split(',')[0]}, buildx 0.24: scripts/docker_help.py")
    for name, (others, flags) in sorted(found.items()):
        print(f"\n{name or '(global)'}" + (" = " + ", ".join(others) if others else ""))
        for flag in sorted(flags, key=lambda flag: flag.split("--")[1]):
            print(f"  {flag}")


if __name__ == "__main__":
    main()
