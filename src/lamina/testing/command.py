# SPDX-License-Identifier: Apache-2.0
"""The whole command as a user runs it, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Actor:
    """Who runs the commands of tests: root itself, unless the whole run is an ordinary user's."""

    def command(
        self,
        argv: Sequence[str],
        *,
        cwd: str | Path,
        own: Sequence[str | Path],
    ) -> list[str]:
        """`argv` as the actor runs it, once the trees in `own` are theirs."""
        return list(argv)

    def uid(self, inside: int) -> int:
        """What a container's user or group `inside` is to the host."""
        return inside


actor = Actor()


def installed(*words: str) -> list[str]:
    """The command line of `lamina` as pip installed it beside this interpreter."""
    return [os.path.join(os.path.dirname(sys.executable), "lamina"), *words]


class Lamina:
    """Runs `lamina` in a process of its own on the store at `root`, in directory `cwd`.

    A call gives the finished process with its output as text. It fails the test if the command
    failed (unless `check` is False) and always if it printed a traceback.
    """

    def __init__(self, root: Path, cwd: Path) -> None:
        self.root = root
        self.cwd = cwd
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("LAMINA_")}
        self.env |= {"LAMINA_ROOT": str(root)}
        self.env.pop("SOURCE_DATE_EPOCH", None)
        self.env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)

    def argv(self, *words: str) -> list[str]:
        return actor.command(installed(*words), cwd=self.cwd, own=(self.root, self.cwd))

    def __call__(
        self, *words: str, check: bool = True, stdin: bytes = b"", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.argv(*words),
            env=self.env | (env or {}),
            cwd=self.cwd,
            input=stdin,
            capture_output=True,
            timeout=250,
            check=False,
        )
        result = subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )
        assert "Traceback" not in result.stderr, result.stderr
        if check:
            assert result.returncode == 0, f"{words}: {result.returncode}\n{result.stderr}"
        return result

    def id_of(self, name: str) -> str:
        return self("inspect", "--format", "{{.Id}}", name).stdout.strip()


def write(folder: Path, files: dict[str, str]) -> None:
    """Write the files, by their paths in the folder; directories are made."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
