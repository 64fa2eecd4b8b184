# SPDX-License-Identifier: Apache-2.0
"""Failures of the disk below the store, as errors that say what to do."""

from __future__ import annotations

import errno

from lamina.errors import Kind, LaminaError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
FULL_HINT = "free space, for example with `lamina system prune`"


class StoreFull(LaminaError):
    """No space, quota or inodes are left for the store."""

    kind = Kind.EXHAUSTED


def is_full(error: OSError) -> bool:
    """Whether the error says that the disk, a quota or the inodes are used up."""
    return error.errno in _FULL


def disk_error(error: OSError, what: str) -> LaminaError:
    """`what: reason` with the kind of the errno; raise it `from` the error."""
    message = f"{what}: {error.strerror or error}"
    if error.errno in _FULL:
        return StoreFull(message, hint=FULL_HINT)
    if error.errno in _DENIED:
        return LaminaError(message, kind=Kind.DENIED, hint="use a store that you own (--root)")
    if error.errno == errno.EMFILE:
        return LaminaError(message, kind=Kind.EXHAUSTED, hint="raise `ulimit -n`")
    return LaminaError(message, kind=Kind.SYSTEM)
