# SPDX-License-Identifier: Apache-2.0
"""The files that this process has open, for tests of what is closed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def opened_below(directory: Path) -> list[str]:
    """The paths below `directory` of every descriptor of this process, sorted."""
    paths: list[str] = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            paths.append(os.readlink(f"/proc/self/fd/{number}"))
    return sorted(path for path in paths if path.startswith(f"{directory}/"))
