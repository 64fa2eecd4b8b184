# SPDX-License-Identifier: Apache-2.0
"""What the registry commands share: the connection made from the command's environment."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.cli.context import Context
    from lamina.registry.client import Registries


def connect(context: Context) -> Registries:
    """The way into registries: a context manager."""
    from lamina.app import registries as app

    return app.connect(
        context.env,
        uid=context.uid,
        settings=context.settings(),
        clock=context.clock,
        cancel=context.token(),
    )
