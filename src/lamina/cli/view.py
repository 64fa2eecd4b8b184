# SPDX-License-Identifier: Apache-2.0
"""The view of what happens that a command's flags ask for: one of `lamina.cli.ui`, or none."""

from __future__ import annotations

import os

from lamina.cli.ui.plain import PlainView

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from lamina.cli.context import Context
    from lamina.events import Event

    class View(Protocol):
        def __call__(self, event: Event) -> None: ...
        def close(self) -> None: ...


def make_view(
    progress: str, context: Context, *, quiet: bool, explain: bool = False, builds: bool = True
) -> View:
    """The renderer of events on standard error; `builds` False if only transfers are to come."""
    if quiet or progress == "quiet":
        return _Silent()
    if progress in {"json", "rawjson"}:
        from lamina.cli.ui.jsonl import JsonView

        return JsonView(context.stderr)
    if progress == "tty" or (progress == "auto" and context.stderr.isatty()):
        from lamina.cli.ui.colours import palette
        from lamina.cli.ui.tty import LiveView

        return LiveView(
            context.stderr,
            clock=context.clock,
            width=_width(context),
            explain=explain,
            builds=builds,
            colours=palette(context.env, is_terminal=context.stderr.isatty()),
        )
    return PlainView(context.stderr, explain=explain)


class _Silent:
    def __call__(self, event: Event) -> None: ...

    def close(self) -> None: ...


def _width(context: Context) -> int:
    try:
        return os.get_terminal_size(context.stderr.fileno()).columns
    except (OSError, ValueError):
        return 80
