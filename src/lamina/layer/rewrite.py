# SPDX-License-Identifier: Apache-2.0
"""Existing layers again, with times clamped (what BuildKit calls `rewrite-timestamp`)."""

from __future__ import annotations

from lamina.layer.tarread import read_tar
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from lamina.layer.entry import Items

_SECOND = 1_000_000_000


def clamped(tar: IO[bytes], *, clamp_mtime: int) -> Items:
    """The items of an uncompressed layer in their order; mtimes above `clamp_mtime` become it.

    `clamp_mtime` is in POSIX seconds (SOURCE_DATE_EPOCH). Contents are streams: use each item
    before asking for the next. Sparse files become plain ones.
    """
    limit = clamp_mtime * _SECOND
    for entry, reader in read_tar(tar):
        if entry.mtime_ns > limit:
            yield replace(entry, mtime_ns=limit), reader
        else:
            yield entry, reader
