# SPDX-License-Identifier: Apache-2.0
"""The limit of files that this process may have open."""

from __future__ import annotations

import resource


def raise_limit() -> None:
    """Raise the soft limit to the hard one, as Go's runtime does at the start of every program.

    Programs that are started afterwards inherit it. Idempotent.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
