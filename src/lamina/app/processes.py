# SPDX-License-Identifier: Apache-2.0
"""The processes of a container as the host's `ps` shows them."""

from __future__ import annotations

import os
import subprocess

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.app.containers import Container


def processes(container: Container, options: Sequence[str]) -> list[str]:
    """The heading and the lines of `ps OPTIONS` that are of the container.

    Raises LaminaError: CONFLICT if it does not run, INVALID for options that ps refuses or that show
    no PID, UNSUPPORTED without ps on this host.
    """
    state = container.state()
    if not state.is_running:
        raise LaminaError(f"container {container.id} is not running", kind=Kind.CONFLICT)
    try:
        done = subprocess.run(
            ["ps", *options],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise LaminaError("this host has no ps", kind=Kind.UNSUPPORTED) from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["?"])[-1]
        raise LaminaError(f"ps {' '.join(options)}: {reason}", kind=Kind.INVALID)
    return selected(done.stdout.splitlines(), _pids(state.pid))


def selected(lines: Sequence[str], pids: set[int]) -> list[str]:
    """The heading, and the lines whose PID is one of `pids`. Raises LaminaError without PID."""
    heading = lines[0].split() if lines else []
    if "PID" not in heading:
        raise LaminaError("Couldn't find PID field in ps output", kind=Kind.INVALID)
    at = heading.index("PID")
    found = [lines[0]]
    for line in lines[1:]:
        fields = line.split()
        if len(fields) > at and fields[at].isdigit() and int(fields[at]) in pids:
            found.append(line)
    return found


def _pids(first: int) -> set[int]:
    """The processes in the pid namespace of `first`."""
    namespace = _namespace(first)
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return {pid for pid in pids if namespace and _namespace(pid) == namespace}


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:  # it has ended
        return ""
