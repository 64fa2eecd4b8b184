# SPDX-License-Identifier: Apache-2.0
"""What `lamina update` changes of a container that is there: at once if it runs, and for its next start."""

from __future__ import annotations

from lamina.container import lifecycle
from lamina.container.extras import Extras
from lamina.container.host import check_limits
from lamina.container.restarts import parse_policy
from lamina.container.runtime import find_runtime
from lamina.container.updating import update_limits
from lamina.errors import Kind, LaminaError
from lamina.start.record import Record, defaults, fields, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.app.containers import Container
    from lamina.container.ports import ProcessSpec
    from lamina.container.state import ContainerConfig
    from lamina.store.ports import Store


def update_restart_policy(store: Store, container: Container, text: str) -> None:
    """Give the container the restart policy `text`, as of `--restart`. Its monitor, if it has one,
    goes by it when the container ends the next time.

    Raises LaminaError: USAGE (no policy), CONFLICT (`--rm`), NOT_FOUND, INVALID (damaged).
    """
    policy = parse_policy(text)

    def change(config: ContainerConfig) -> ContainerConfig:
        if config.auto_remove and policy.name != "no":
            raise LaminaError(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
                kind=Kind.CONFLICT,
            )
        return replace(config, restart=str(policy))

    lifecycle.reconfigure(store, container.id, change)
    container.tell("update")


class Changes(Record):
    """New values of limits; what has its default stays as it is. `extras` likewise."""

    memory: int = 0
    memory_swap: int = 0
    cpus: float = 0.0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int = 0
    extras: Extras = Extras()  # immutable


def update(store: Store, container: Container, changes: Changes, *, runtime: str) -> None:
    """Change the limits of the container. `runtime` is the host's, where it has none of its own.

    Raises LaminaError: USAGE for limits that contradict, UNSUPPORTED for what this host has not.
    """
    config = container.config
    name = config.runtime or runtime
    process = changed(config.process, changes)
    check_limits(process, find_runtime(store.root, override=name, delegated=True))
    found = container.state()
    if found.is_running:
        update_limits(store.root, container.id, process, runtime_name=name, pid=found.pid)
    lifecycle.reconfigure(store, container.id, lambda known: replace(known, process=process))
    container.tell("update")


def changed(process: ProcessSpec, changes: Changes) -> ProcessSpec:
    """The process with the new limits (moby daemon/update.go, container/container_unix.go).

    Raises LaminaError of kind USAGE for limits that contradict.
    """
    extras = process.extras or Extras()
    new = changes.extras
    if changes.cpus and (extras.cpu_quota or extras.cpu_period):
        raise _conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU "
            f"{'Quota' if extras.cpu_quota else 'Period'} has already been set"
        )
    if process.cpus and (new.cpu_quota or new.cpu_period):
        raise _conflict(
            f"Conflicting options: CPU {'Quota' if new.cpu_quota else 'Period'} cannot be updated "
            "as NanoCPUs has already been set"
        )
    given = {name: getattr(changes, name) for name in fields(Changes) if name != "extras"}
    result = replace(process, **{name: value for name, value in given.items() if value})
    if result.memory_swap > 0 and result.memory > result.memory_swap:
        raise _conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the "
            "memoryswap at the same time"
        )
    usual = defaults(Extras)
    asked = {
        name: getattr(new, name) for name in fields(Extras) if getattr(new, name) != usual[name]
    }
    if not asked:
        return result
    merged = replace(extras, **asked)
    if 0 < result.memory < merged.memory_reservation:
        raise _conflict(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    return replace(result, extras=merged)


def _conflict(message: str) -> LaminaError:
    return LaminaError(message, kind=Kind.USAGE)
