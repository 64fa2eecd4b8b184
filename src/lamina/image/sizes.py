# SPDX-License-Identifier: Apache-2.0
"""Sizes as people read them."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def human_size(size: float) -> str:
    """Bytes in decimal units with three digits: `77.8MB` (go-units HumanSizeWithPrecision 3)."""
    value = float(size)
    for unit in _UNITS:
        text = f"{value:.3g}"
        if "e" not in text:
            return f"{text}{unit}"
        value /= 1000.0
    raise LaminaError(f"size {size!r} is out of range", kind=Kind.INVALID)
