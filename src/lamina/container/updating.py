# SPDX-License-Identifier: Apache-2.0
"""Other limits for a container that runs, by the runtime's `update`."""

from __future__ import annotations

import os

from lamina.container import state
from lamina.container.errorlog import read_error
from lamina.container.instance import runtime_command
from lamina.container.launcher import ENVIRONMENT
from lamina.container.limits import add_resources
from lamina.container.runtime import find_runtime
from lamina.container.spec import resources_of
from lamina.errors import LaminaError
from lamina.start.jsontext import dumps
from lamina.system.programs import run_program
from lamina.system.userns import join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.container.host import Runtime
    from lamina.container.ports import ProcessSpec


def update_limits(root: str, id: str, process: ProcessSpec, *, runtime_name: str, pid: int) -> None:
    """Give the running container `id`, whose first process is `pid`, the limits of `process`.

    All are written, also those that stay: a runtime takes what is left out for unchanged.

    Raises LaminaError: what the runtime says, as when memory in use is above a new limit.
    """
    join(pid)
    runtime = find_runtime(root, override=runtime_name, delegated=True)
    resources = resources_of(process, runtime.host)
    resources.pop("devices", None)
    if process.extras is not None:
        add_resources(resources, process.extras)
    if process.pids_limit < 0:
        resources["pids"] = {"limit": -1}
    directory = state.directory_of(root, id)
    file, log = f"{directory}/update-{os.getpid()}.json", f"{directory}/update-{os.getpid()}.log"
    try:
        with open(file, "w", encoding="utf-8") as stream:
            stream.write(dumps(resources))
        _run(runtime, ["--resources", file, id], directory=directory, log=log)
    finally:
        for path in (file, log):
            if os.path.exists(path):
                os.unlink(path)


def _run(runtime: Runtime, arguments: list[str], *, directory: str, log: str) -> None:
    argv = runtime_command(runtime, "update", *arguments, directory=directory, log=log)
    with open(os.devnull, "r+b") as null:
        streams = null.fileno()
        status = run_program(argv, env=ENVIRONMENT, stdin=streams, stdout=streams, stderr=streams)
    if status != 0:
        message = read_error(log) or f"{runtime.name} ended with status {status}"
        raise LaminaError(f"Cannot update container {arguments[-1]}: {message}")
