# SPDX-License-Identifier: Apache-2.0
"""The life of a process that is one command, short at both ends.

It looks for cycles of objects when there are many new ones, imports lamina's modules from one file, and
does not take the interpreter apart when it ends.
"""

from __future__ import annotations

import os
import sys

from lamina.start import codecache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

# new objects before the collector looks for cycles: at Python's 700 it runs 60 times in a cached build
_GC_THRESHOLD = 10_000

_modules: codecache.CodeCache | None = None


def begin() -> None:
    """What is for the whole process. Called before most modules are imported; idempotent."""
    import gc

    global _modules
    if _modules is None:
        gc.set_threshold(_GC_THRESHOLD)
        _modules = codecache.install()


def run(command: Callable[[], int]) -> NoReturn:
    """End the process with the exit status that `command` returns, its output flushed.

    Without threads it ends at once: taking the interpreter apart, object by object, costs 4 ms, and
    everything that must be written was closed or is flushed here. With them it ends as usual.
    """
    begin()
    status = command()
    if _modules is not None:
        _modules.keep()
    if "threading" in sys.modules:
        sys.exit(status)
    import atexit

    atexit._run_exitfuncs()
    try:
        sys.stderr.flush()
    except OSError:
        status = status or 1
    os._exit(status)
