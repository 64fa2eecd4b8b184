# SPDX-License-Identifier: Apache-2.0
"""Failures on standard error, in the words of a person who can act on them."""

from __future__ import annotations

import errno
import os
import sys

from lamina.cli.ui.escape import printable
from lamina.errors import EXIT_BUG, EXIT_STATUS, Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.cli.context import Context


def report(error: LaminaError, context: Context | None) -> None:
    """Print the error and its hint to standard error."""
    stream = context.stderr if context is not None else sys.stderr
    stream.write(f"lamina: {printable(str(error), keep_newlines=True)}\n")
    for note in getattr(error, "__notes__", ()):
        stream.write(printable(note, keep_newlines=True) + "\n")
    if error.hint:
        stream.write(f"hint: {printable(error.hint)}\n")
    stream.flush()


def report_group(group: BaseExceptionGroup[BaseException], context: Context) -> int:
    """Independent errors of parallel tasks: each is reported; the first decides the status."""
    ours, others = group.split(LaminaError)
    if others is not None or ours is None:
        return report_bug(context)
    status = EXIT_BUG
    for error in reversed(_leaves(ours)):
        report(error, context)
        status = EXIT_STATUS[error.kind]
    return status


def _leaves(group: BaseExceptionGroup[LaminaError]) -> list[LaminaError]:
    errors: list[LaminaError] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            errors += _leaves(error)
        else:
            errors.append(error)
    return errors


def from_os_error(error: OSError) -> LaminaError:
    """The error as one a person can act on: which file, what the kernel said."""
    kinds = {
        errno.ENOENT: Kind.NOT_FOUND,
        errno.EACCES: Kind.DENIED,
        errno.EPERM: Kind.DENIED,
        errno.ENOSPC: Kind.EXHAUSTED,
        errno.EDQUOT: Kind.EXHAUSTED,
        errno.EMFILE: Kind.EXHAUSTED,
        errno.ENFILE: Kind.EXHAUSTED,
    }
    kind = kinds.get(error.errno or 0, Kind.SYSTEM)
    subject = error.filename
    if isinstance(subject, bytes):
        subject = os.fsdecode(subject)
    reason = error.strerror or str(error)
    return LaminaError(f"{subject}: {reason}" if subject else reason, kind=kind)


def report_bug(context: Context) -> int:
    """Print the traceback of the exception at hand and how to report it; the exit status."""
    import traceback

    context.stderr.write(traceback.format_exc())
    context.warn(
        "lamina: this is a bug in lamina; please report it with the text above "
        "and the output of 'lamina info'"
    )
    return EXIT_BUG
