# SPDX-License-Identifier: Apache-2.0
"""The completion scripts, in the shells that they are for; the man pages, by what formats them."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

import pytest

from lamina.cli import completion
from lamina.cli.completion import Known
from lamina.cli.main import ALIASES, COMMANDS
from lamina.cli.reference import Reference
from lamina.testing.command import installed

KNOWN = Known(Reference(COMMANDS, ALIASES))
SHELLS = {"bash": completion.bash, "zsh": completion.zsh, "fish": completion.fish}
# a `lamina` that knows two containers and an image with a port in its name
FAKE = """
lamina() {
  case "$1" in
    ps) echo web; [ "$2" != -a ] || echo ended ;;
    images) echo busybox:latest; echo localhost:5000/app:1 ;;
  esac
}
timeout() { shift; "$@"; }
"""
BASH = """
COMP_LINE=$1 COMP_POINT=${#1} COMPREPLY=()
_lamina
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
autoload -U compinit; compinit -u -D
source "$2"
compadd() { print -rl -- "${@:2}" }
_files() { print -r -- FILES }
words=(${(z)1}); [[ $1 == *" " ]] && words+=("")
CURRENT=${#words}
_lamina
"""


def _bash(line: str, *, cwd: Path) -> list[str]:
    script = completion.bash(KNOWN) + FAKE + BASH
    done = subprocess.run(
        ["bash", "-c", script, "bash", line], cwd=cwd, capture_output=True, text=True, check=True
    )
    assert not done.stderr
    return [word for word in done.stdout.split("\n") if word]


@pytest.mark.tool("bash")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lamina ru", ["run"]),
        ("lamina container ren", ["rename"]),
        ("lamina --root /x hist", ["history"]),
        ("lamina run --pull", ["--pull"]),
        ("lamina run --pull ", ["never", "missing", "always"]),
        ("lamina run --name x bu", ["busybox:latest"]),
        ("lamina run busybox:", ["latest"]),
        ("lamina run localhost:5000/a", ["5000/app:1"]),
        ("lamina rm ", ["web", "ended"]),
        ("lamina exec ", ["web"]),
        ("lamina container stop w", ["web"]),
        ("lamina exec web a-f", ["a-file"]),
        ("lamina cp web:/etc/passwd a-", ["a-file"]),
        ("lamina image inspect --form", ["--format"]),
        ("lamina nosuch x", []),
    ],
)
def test_bash_completes(tmp_path: Path, line: str, words: list[str]) -> None:
    (tmp_path / "a-file").touch()
    assert _bash(line, cwd=tmp_path) == words


@pytest.mark.tool("bash")
def test_a_store_that_hangs_does_not_hold_up_the_shell() -> None:
    asks = [line for line in completion.bash(KNOWN).split("\n") if "lamina ps" in line]
    assert asks
    assert all("timeout 1 lamina" in line for line in asks)


@pytest.mark.tool("zsh")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lamina run --pull ", ["never", "missing", "always"]),
        ("lamina exec ", ["web"]),
        ("lamina run busybox x", ["FILES"]),
    ],
)
def test_zsh_completes(tmp_path: Path, line: str, words: list[str]) -> None:
    script = tmp_path / "_lamina"
    script.write_text(completion.zsh(KNOWN))
    done = subprocess.run(
        ["zsh", "-f", "-c", FAKE + ZSH, "zsh", line, str(script)],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert [word for word in done.stdout.split("\n") if word] == words, done.stderr


@pytest.mark.tool("fish")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lamina ru", ["run"]),
        ("lamina container ren", ["rename"]),
        ("lamina run --pull ", ["always", "missing", "never"]),
        ("lamina image inspect --form", ["--format"]),
    ],
)
def test_fish_completes(tmp_path: Path, line: str, words: list[str]) -> None:
    script = tmp_path / "lamina.fish"
    script.write_text(completion.fish(KNOWN))
    command = f'source {script}; complete -C "{line}"'
    done = subprocess.run(
        ["fish", "-N", "-c", command],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert [row.split("\t")[0] for row in done.stdout.splitlines()] == words


@pytest.mark.tool("bash", "zsh", "fish")
@pytest.mark.parametrize("shell", sorted(SHELLS))
def test_shells_can_read_it(tmp_path: Path, shell: str) -> None:
    done = subprocess.run(
        installed("completion", shell), capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == SHELLS[shell](KNOWN) + "\n"
    script = tmp_path / "script"
    script.write_text(done.stdout)
    subprocess.run([shell, "-n", str(script)], check=True, capture_output=True)
    for command in COMMANDS:
        assert command.split(" ")[-1] in done.stdout


@pytest.mark.tool("groff")
def test_man_pages_are_well_formed(tmp_path: Path) -> None:
    path = Path(__file__).resolve().parents[3] / "scripts" / "man.py"
    spec = importlib.util.spec_from_file_location("man", path)
    assert spec is not None
    assert spec.loader is not None
    man = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(man)
    man.write(tmp_path)
    pages = sorted(tmp_path.glob("*.1"))
    assert len(pages) == len(COMMANDS) + 1
    words = ["groff", "-man", "-Tutf8", "-P-cbou", "-ww", *map(str, pages)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert not done.stderr
    assert "--security-opt" in done.stdout.replace("‐", "-")
