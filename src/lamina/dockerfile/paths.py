# SPDX-License-Identifier: Apache-2.0
"""Paths as Go's `path` package sees them."""

from __future__ import annotations


def clean(path: str) -> str:
    """Go's `path.Clean`: no empty, `.` or inner `..` parts; `.` for an empty path."""
    rooted = path.startswith("/")
    kept: list[str] = []
    for part in path.split("/"):
        if part in {"", "."}:
            continue
        if part == "..":
            if kept and kept[-1] != "..":
                kept.pop()
            elif not rooted:
                kept.append(part)
            continue
        kept.append(part)
    return ("/" if rooted else "") + "/".join(kept) or "."
