# SPDX-License-Identifier: Apache-2.0
"""What clients may ask for and hold, as values of the configuration."""

from __future__ import annotations

from lamina.start.record import Record

PAGE = 1000  # results of a listing; distribution's default maximum


class Limits(Record):
    """What a request may ask for. `blob` and `manifest` in bytes (0: no limit for blobs)."""

    manifest: int = 4 * 1024 * 1024
    blob: int = 0
    page: int = PAGE


class EdgeLimits(Record):
    """What one client may hold. `idle` and `body` in seconds; `per_client` 0: no limit."""

    idle: float = 60.0
    body: float = 6 * 3600.0
    per_client: int = 0
