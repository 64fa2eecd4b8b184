# SPDX-License-Identifier: Apache-2.0
"""Mounts: overlay and bind, in a mount namespace of lamina's own.

`isolate()` is called once, in the main thread before other threads exist: from then on mounts are
seen by this process and its children only, and vanish with them, kill -9 included.
"""

from __future__ import annotations

from lamina.record import record


@record
class OverlayMount:
    """How to mount a snapshot: `lowers` top layer first; `upper` and `work` empty if read-only."""

    lowers: tuple[str, ...]
    upper: str = ""
    work: str = ""
