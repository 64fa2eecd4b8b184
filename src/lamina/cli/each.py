# SPDX-License-Identifier: Apache-2.0
"""Do something to each of several containers: one failure does not keep the others from it."""

from __future__ import annotations

from lamina.errors import LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamina.app.containers import Container
    from lamina.cli.context import Context


def each(names: Sequence[str], context: Context, action: Callable[[Container], str | None]) -> int:
    """Call `action` for every container; prints what it returns (None: the name as given).

    Errors are printed where they happen; the exit status is 1 if there was one, as Docker's.
    """
    from lamina.app.containers import Host, find
    from lamina.cli.report import report
    from lamina.container.console import StartFailed

    settings = context.settings()
    host = Host(runtime=settings.runtime, subnet=settings.subnet)
    status = 0
    for name in names:
        try:
            text = action(find(context.store(), name, host=host))
        except StartFailed as failure:
            report(failure.error, context)
            status = 1
        except LaminaError as error:
            report(error, context)
            status = 1
        else:
            context.print(name if text is None else text)
            context.stdout.flush()
    return status
