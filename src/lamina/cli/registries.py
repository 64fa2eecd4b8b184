# SPDX-License-Identifier: Apache-2.0
"""What the registry commands share: the connection made from the command's environment."""

from __future__ import annotations

from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.cli.context import Context
    from lamina.registry.client import Registries


def connect(context: Context) -> Registries:
    """The way into registries; the caller closes it."""
    from lamina.app import registries as app

    return app.connect(
        context.env,
        uid=context.uid,
        settings=context.settings(),
        clock=context.clock,
        cancel=context.token(),
    )


@contextmanager
def registries(context: Context) -> Iterator[Registries]:
    """The way into registries, closed at the end of the block."""
    found = connect(context)
    try:
        yield found
    finally:
        found.close()
