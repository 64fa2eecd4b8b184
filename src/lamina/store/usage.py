# SPDX-License-Identifier: Apache-2.0
"""How many bytes of disk each part of a store holds: every inode under the root, once.

Bytes are allocated blocks (st_blocks), as df(1) and statfs(2) count them. Each inode belongs to one
`Part`, so the parts add up to the store.
"""

from __future__ import annotations

import os
import stat

from lamina.start.jsontext import dumps, loads
from lamina.start.record import Record
from lamina.system.paths import names_in
from lamina.system.userns import can_mount, is_possible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.store.local import LocalStore

_BLOCK = 512  # bytes of st_blocks, whatever the filesystem's own (stat(2))
_SIZES = "snapshot_sizes"  # key in the table `state`


class Parts(Record):
    """Bytes by what holds them: blobs by digest, snapshots by name, containers by id, cache mounts
    by path (`cachemounts.walk`), volumes by name, and everything else.
    """

    blobs: dict[str, int]
    snapshots: dict[str, int]
    containers: dict[str, int]
    mounts: dict[str, int]
    volumes: dict[str, int]
    other: int

    @property
    def total(self) -> int:
        """Bytes of the whole store."""
        named = (self.blobs, self.snapshots, self.containers, self.mounts, self.volumes)
        return sum(sum(part.values()) for part in named) + self.other


def measure(store: LocalStore) -> Parts:
    """Every part of the store as it is on disk now. What changes meanwhile may be missed."""
    names = {str(number): name for number, name, _ in _snapshots(store)}
    count = _Counter()
    root = store.root
    blobs: dict[str, int] = {}
    snapshots: dict[str, int] = {}
    by_name: dict[str, dict[str, int]] = {"containers": {}, "volumes": {}}
    mounts: dict[str, int] = {}
    other = count.own(root)
    for top in names_in(root):
        place = os.path.join(root, top)
        if top not in {"blobs", "snapshots", "cachemounts", *by_name}:
            other += count.tree(place)
            continue
        other += count.own(place)
        for name in names_in(place):
            below = os.path.join(place, name)
            if top == "snapshots" and name in names:
                snapshots[names[name]] = count.tree(below)
            elif top in by_name:
                by_name[top][name] = count.tree(below)
            elif top == "blobs":
                other += count.own(below)
                for hexadecimal in names_in(below):
                    blobs[f"{name}:{hexadecimal}"] = count.tree(os.path.join(below, hexadecimal))
            elif top == "cachemounts":
                other += count.own(below)
                for number in names_in(below):
                    path = os.path.join(below, number)
                    if number.isdecimal():
                        mounts[os.path.join(path, "fs")] = count.tree(path)
                    else:
                        other += count.tree(path)
            else:
                other += count.tree(below)
    return Parts(blobs, snapshots, by_name["containers"], mounts, by_name["volumes"], other)


def layer_sizes(store: LocalStore) -> tuple[dict[str, int], dict[str, int]]:
    """(blobs by digest, committed snapshots by name) in bytes. A snapshot, which never changes, is
    walked once; its size is remembered.
    """
    blobs = {}
    for blob in store.content.walk():
        blobs[str(blob.digest)] = _allocated(store.content.path(blob.digest))
    known = _remembered(store)
    sizes: dict[str, int] = {}
    seen: dict[str, int] = {}
    for number, name, is_committed in _snapshots(store):
        if not is_committed:
            continue
        size = known.get(str(number))
        if size is None:
            size = tree_bytes(os.path.join(store.snapshots.directory, str(number)))
        seen[str(number)] = size
        sizes[name] = size
    if seen != known:
        text = dumps(seen)
        store.database.write(
            lambda transaction: transaction.run(
                "INSERT OR REPLACE INTO state VALUES (?, ?)", (_SIZES, text)
            )
        )
    return blobs, sizes


def tree_bytes(path: str) -> int:
    """Bytes of everything beneath and at `path`, hard links once; 0 if it is gone."""
    return _Counter().tree(path)


class _Counter:
    """Adds up inodes, each once."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()

    def own(self, path: str) -> int:
        """Bytes of one file or directory itself."""
        try:
            return self._of(os.lstat(path))
        except FileNotFoundError:
            return 0

    def tree(self, path: str) -> int:
        """Bytes of a file, or of a directory with all that is in it on the same filesystem."""
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return 0
        total = self._of(found)
        if not stat.S_ISDIR(found.st_mode):
            return total
        todo = [path]
        while todo:
            directory = todo.pop()
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        try:
                            status = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue
                        if status.st_dev != found.st_dev:
                            continue  # something is mounted there
                        total += self._of(status)
                        if stat.S_ISDIR(status.st_mode):
                            todo.append(entry.path)
            except PermissionError:  # another owner's, whom this user's namespace has
                if not can_mount() and is_possible():
                    todo.append(directory)
            except FileNotFoundError:
                continue
        return total

    def _of(self, found: os.stat_result) -> int:
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            inode = (found.st_dev, found.st_ino)
            if inode in self._seen:
                return 0
            self._seen.add(inode)
        return found.st_blocks * _BLOCK


def _snapshots(store: LocalStore) -> list[tuple[int, str, bool]]:
    rows = store.database.read("SELECT id, name, committed FROM snapshots")
    return [(int(number), str(name), bool(committed)) for number, name, committed in rows]


def _remembered(store: LocalStore) -> dict[str, int]:
    rows = store.database.read("SELECT value FROM state WHERE key = ?", (_SIZES,))
    try:
        found = loads(rows[0][0]) if rows else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _allocated(path: str) -> int:
    try:
        return os.lstat(path).st_blocks * _BLOCK
    except FileNotFoundError:
        return 0
