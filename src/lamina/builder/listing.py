# SPDX-License-Identifier: Apache-2.0
"""A selection for people: what an explanation of a cache miss compares."""

from __future__ import annotations

import os

from lamina.builder.selection import Picked, join
from lamina.builder.tree import shown
from lamina.layer.entry import EntryType
from lamina.start.hashing import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import _Hash

    from lamina.builder.selection import Selection
    from lamina.builder.tree import Tree

SHOWN = 16  # hexadecimal digits of a file's digest in a listing
MAX_LISTING = 10_000  # lines of a listing


def listing(selection: Selection, tree: Tree) -> dict[str, str]:
    """The selection for people, by path: `type mode owner digest-or-target`, `-` for what does not
    count, and the digest of the bytes alone where it is another. What an explanation of a cache miss compares (`solver.explain.file_causes`).

    More than `MAX_LISTING` files are summed up by directory, as deep as that many lines allow.
    """
    rows: dict[str, str] = {}
    if selection.count > MAX_LISTING:
        for path, sum_ in selection.sums:
            rows[shown(path) + "/"] = f"dir - - {sum_.hex()[:SHOWN]}"
        return rows if len(rows) <= MAX_LISTING else _summed_up(rows)
    for match in selection.matches:
        if selection.mounted is not None:
            root = Picked(b"", match.path, EntryType.DIR, selection.mounted)
            rows[shown(match.path) or "."] = _row(root, tree)
        for picked in match.picked:
            rows[shown(join(match.path, picked.path)) or "."] = _row(picked, tree)
    return rows


def _row(picked: Picked, tree: Tree) -> str:
    status, kind = picked.status, picked.type
    mode = "-" if kind is EntryType.SYMLINK else f"{tree.mode(status):04o}"
    owner = f"{status.st_uid}:{status.st_gid}" if tree.keeps_owner else "-"
    content = "-"
    if kind is EntryType.FILE:
        content = picked.digest.hex()[:SHOWN]
        if picked.content:
            content += " " + picked.content.hex()[:SHOWN]
    elif kind is EntryType.SYMLINK:
        content = shown(picked.link)
    elif picked.xattrs:
        content = "attributes " + sha256(repr(picked.xattrs).encode()).hexdigest()[:SHOWN]
    elif kind in {EntryType.CHAR, EntryType.BLOCK}:
        content = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return f"{kind.name.lower()} {mode} {owner} {content}"


def _summed_up(rows: dict[str, str]) -> dict[str, str]:
    for depth in range(40, 0, -1):
        sums: dict[str, _Hash] = {}
        for path, row in rows.items():
            place = "/".join(path.split("/")[:-1][:depth]) + "/"
            sums.setdefault(place, sha256()).update(f"{path}\0{row}\n".encode())
            if len(sums) > MAX_LISTING:
                break
        else:
            return {
                place: f"dir - - {digest.hexdigest()[:SHOWN]}" for place, digest in sums.items()
            }
    return {}
