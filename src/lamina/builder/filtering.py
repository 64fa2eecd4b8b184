# SPDX-License-Identifier: Apache-2.0
"""Which files below a copied directory count: `--exclude`, and the pattern of `--parents`.

Patterns are those of `.dockerignore`: relative to the directory, `**` crosses directories, a match
covers what is below it, and in excludes `!` negates.
"""

from __future__ import annotations

import os

from lamina.dockerfile.ignore import IgnoreMatcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Filter:
    """`include` is a pattern (None: everything); what `exclude` matches is left out of that.

    Raises:
        InvalidPattern: a malformed pattern.
    """

    def __init__(self, *, include: str | None = None, exclude: Sequence[str] = ()) -> None:
        # everything is ignored but the pattern: that also tells which directories to enter
        self._include = IgnoreMatcher(("**", f"!{include}")) if include is not None else None
        self._exclude = IgnoreMatcher(tuple(map(_relative, exclude))) if exclude else None

    def takes(self, path: bytes) -> bool:
        """Whether the file at the path (relative to the directory) is copied."""
        text = os.fsdecode(path)
        if self._include is not None and self._include.excludes(text):
            return False
        return self._exclude is None or not self._exclude.excludes(text)

    def enters(self, path: bytes) -> bool:
        """Whether something below the directory may be copied."""
        text = os.fsdecode(path)
        include, exclude = self._include, self._exclude
        if include is not None and include.excludes(text) and not include.may_include_below(text):
            return False
        return exclude is None or not exclude.excludes(text) or exclude.may_include_below(text)


def _relative(pattern: str) -> str:
    """The pattern without a leading slash, which would match nothing."""
    if pattern.startswith("!"):
        return "!" + pattern[1:].lstrip("/")
    return pattern.lstrip("/")
