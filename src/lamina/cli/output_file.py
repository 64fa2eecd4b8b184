# SPDX-License-Identifier: Apache-2.0
"""An archive that goes to the file of `-o`, or to standard output."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.exporter.destination import write_aside
from lamina.exporter.ports import Exported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.cli.context import Context


def write_output(
    output: str, fill: Callable[[Callable[[bytes], object]], None], context: Context
) -> None:
    """Write what `fill` gives: a file appears whole, or not at all; empty and `-` are standard output.

    Raises:
        LaminaError: kind USAGE for a terminal; what `fill` raises; EXHAUSTED, DENIED.
    """
    if output not in {"", "-"}:
        write_aside(context.path(output), fill, Exported(None, None)).finalize()
        return
    if context.stdout.isatty():
        raise LaminaError(
            "cowardly refusing to save to a terminal",
            kind=Kind.USAGE,
            hint="use -o FILE or redirect standard output",
        )
    fill(context.stdout.buffer.write)
    context.stdout.flush()
