# SPDX-License-Identifier: Apache-2.0
"""What an entry of a layer may be: the checks that unpacking and wrapping share."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.layer.entry import OPAQUE_WHITEOUT, WHITEOUT_PREFIX, Entry, EntryType
from lamina.system.paths import NAME_MAX, shown
from lamina.system.xattrs import is_overlay_private


def check_name(path: bytes, name: bytes) -> None:
    """Raise LaminaError (INVALID) unless the last component of `path` can be a file's name."""
    if name in {b"", b".", b".."} or b"\0" in path:
        raise LaminaError(f"invalid name {shown(path)}", kind=Kind.INVALID)
    if len(name) > NAME_MAX:
        raise LaminaError(
            f"the name {shown(name[:40])}... has {len(name)} bytes: the limit is {NAME_MAX}",
            kind=Kind.INVALID,
        )


def hidden_name(path: bytes, name: bytes) -> bytes | None:
    """What a whiteout hides, empty for an opaque marker; None if it is no whiteout.

    Raises:
        LaminaError: kind INVALID for a whiteout of nothing that can be hidden.
    """
    if not name.startswith(WHITEOUT_PREFIX):
        return None
    if name == OPAQUE_WHITEOUT:
        return b""
    hidden = name.removeprefix(WHITEOUT_PREFIX)
    # `.wh.`, `.wh..` and `.wh...` would name the directory, itself or its parent; names that
    # begin with `.wh..wh.` are AUFS's own and mean nothing in a layer but the opaque marker.
    if hidden in {b"", b".", b".."} or hidden.startswith(WHITEOUT_PREFIX):
        raise LaminaError(f"invalid whiteout {shown(path)}", kind=Kind.INVALID)
    return hidden


def check_device(entry: Entry) -> None:
    """Raise LaminaError (INVALID) if overlayfs would take the device for a whiteout."""
    if entry.type is EntryType.CHAR and entry.devmajor == entry.devminor == 0:
        raise LaminaError(
            f"{shown(entry.path)} is the character device 0:0, overlayfs's whiteout",
            kind=Kind.INVALID,
        )


def invalid_link(entry: Entry) -> LaminaError:
    """A hard link whose other name is not there, or cannot have two."""
    return LaminaError(
        f"{shown(entry.path)} is a hard link to {shown(entry.linkname)}, which is not a "
        "file that comes before it",
        kind=Kind.INVALID,
    )


def check_link_room(entry: Entry, path: bytes, source: bytes) -> None:
    """Raise LaminaError (INVALID) if making room at `path` for a hard link removes its `source`."""
    if source.startswith(path + b"/"):
        raise LaminaError(
            f"{shown(entry.path)} is a hard link to {shown(entry.linkname)}, which it would replace",
            kind=Kind.INVALID,
        )


def not_a_directory(path: bytes) -> LaminaError:
    """Something on the way to an entry that cannot hold it."""
    return LaminaError(f"{shown(path)} is not a directory", kind=Kind.INVALID)


def is_not_private(name: bytes) -> bool:
    """Whether an attribute is more than overlayfs's own bookkeeping."""
    return not is_overlay_private(name)
