# SPDX-License-Identifier: Apache-2.0
"""What the layers below show at a path, without mounting them.

The rules are overlayfs's: the top layer that has a name decides; directories of one name merge
until one of them is opaque or something that is not a directory lies between; a whiteout hides
what is below. The layers are committed and do not change.
"""

from __future__ import annotations

import os
import stat

from lamina.layer.entry import join, split
from lamina.layer.walk import is_whiteout
from lamina.system.paths import lstat_beneath
from lamina.system.xattrs import is_opaque, xattrs_beneath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Lowers:
    """The merged view of layer directories in overlay form, top first. Methods raise OSError."""

    def __init__(self, roots: Sequence[str]) -> None:
        self._roots = tuple(os.fsencode(root) for root in roots)
        self._directories: dict[bytes, tuple[bytes, ...]] = {b"": self._roots}

    def lookup(self, path: bytes) -> tuple[bytes, os.stat_result] | None:
        """The layer that shows `path`, and the status of what is there; None if nothing is.

        `path` is resolved literally: a symbolic link on the way is not a directory.
        """
        if not path:
            return (self._roots[0], lstat_beneath(self._roots[0], b"")) if self._roots else None
        for root in self._directory(split(path)[0]):
            try:
                status = lstat_beneath(root, path)
            except FileNotFoundError:
                continue
            return None if is_whiteout(status) else (root, status)
        return None

    def names(self, path: bytes = b"") -> list[bytes]:
        """The names in a merged directory (the root), sorted."""
        seen: set[bytes] = set()
        for root in self._directory(path):
            with os.scandir(join(root, path) if path else root) as found:
                seen.update(entry.name for entry in found)
        return sorted(name for name in seen if self.lookup(join(path, name)) is not None)

    def _directory(self, path: bytes) -> tuple[bytes, ...]:
        """The layers whose directory `path` is part of the merged one, top first."""
        known = self._directories.get(path)
        if known is not None:
            return known
        missing = [path]  # not recursive: an archive chooses the depth
        while (parent := split(missing[-1])[0]) not in self._directories:
            missing.append(parent)
        for child in reversed(missing):
            above = self._directories[split(child)[0]]
            self._directories[child] = self._merge(child, above)
        return self._directories[path]

    def _merge(self, path: bytes, above: tuple[bytes, ...]) -> tuple[bytes, ...]:
        found = []
        for root in above:
            try:
                status = lstat_beneath(root, path)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(status.st_mode):
                break
            found.append(root)
            if is_opaque(xattrs_beneath(root, path)):
                break
        return tuple(found)


def is_hidden(path: bytes, opaque: set[bytes]) -> bool:
    """Whether one of the directories above `path` is in `opaque`."""
    parent = path
    while opaque and parent:
        parent = split(parent)[0]
        if parent in opaque:
            return True
    return False
