# SPDX-License-Identifier: Apache-2.0
"""Limits that only a control group enforces, refused where there is none."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.container.ports import ProcessSpec
    from lamina.container.runtime import Runtime


def check_limits(process: ProcessSpec, runtime: Runtime) -> None:
    """A limit that nothing would enforce is an error, never ignored.

    Raises:
        LaminaError: kind UNSUPPORTED, naming the flag and the control group.
    """
    wanted = (
        ("memory", "--memory", process.memory > 0),
        ("cpu", "--cpus", process.cpus > 0),
        ("cpu", "--cpu-shares", process.cpu_shares > 0),
        ("cpuset", "--cpuset-cpus", bool(process.cpuset_cpus)),
        ("cpuset", "--cpuset-mems", bool(process.cpuset_mems)),
        ("pids", "--pids-limit", process.pids_limit > 0),
    )
    for controller, flag, is_asked in wanted:
        if not is_asked:
            continue
        if runtime.manager == "disabled" or controller not in runtime.cgroups.controllers:
            raise LaminaError(
                f"{flag} cannot be enforced: this host has no {controller} control group "
                f"that {runtime.name} could use",
                kind=Kind.UNSUPPORTED,
                hint="'lamina info' tells what was found",
            )
