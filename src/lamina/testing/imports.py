# SPDX-License-Identifier: Apache-2.0
"""What a command imports, as the interpreter tells it (`-X importtime`)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.testing.command import Lamina

SCRIPT = Path(__file__).parents[3] / "bin/lamina"  # what pip installs


def imports(lamina: Lamina, *words: str) -> tuple[set[str], set[str]]:
    """The modules that the command imported: (of the standard library, lamina's)."""
    timed = [sys.executable, "-X", "importtime"]
    found = []
    for argv in ([*timed, "-c", "pass"], [*timed, str(SCRIPT), *words]):
        done = subprocess.run(
            argv, env=lamina.env, cwd=lamina.cwd, capture_output=True, text=True, check=True
        )
        found.append(set(re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE)))
    own = {name for name in found[1] if name.partition(".")[0] == "lamina"}
    return found[1] - found[0] - own, own
