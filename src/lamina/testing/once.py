# SPDX-License-Identifier: Apache-2.0
"""What is made once a run of the tests, by whichever of its processes comes first."""

from __future__ import annotations

import os
import shutil

from lamina.system.locks import FileLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The directory `name`, which `make` filled in a process of this run, for all its processes.

    `make` is given another path, which becomes that one when it is done: what failed is made anew.
    """
    place = factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        place = place.parent  # all workers' directories are in it
    made = place / name
    with FileLock(f"{made}.lock"):
        if not made.exists():
            unfinished = place / f"{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(made)
    return made
