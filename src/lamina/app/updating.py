# SPDX-License-Identifier: Apache-2.0
"""What `lamina update` changes of a container that is there."""

from __future__ import annotations

from lamina.container import lifecycle
from lamina.container.restarts import parse_policy
from lamina.errors import Kind, LaminaError
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.app.containers import Container
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
