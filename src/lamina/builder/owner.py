# SPDX-License-Identifier: Apache-2.0
"""`--chown=USER[:GROUP]`, with names looked up in the image's own /etc/passwd and /etc/group.

As BuildKit: a number for the user alone is the group too, a name's group is its primary one, and
a group alone leaves the user root. Unlike BuildKit, an unknown name is an error: silently making
root the owner is never what was asked for. `root` itself is 0 in an image without accounts.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.layer.entry import EntryType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.builder.changes import Changes

MAX_DATABASE = 1 << 20  # bytes of /etc/passwd or /etc/group that are read
_MAX_ID = 2**32 - 2  # (uid_t)-1 means "unchanged" to chown(2)


def find_owner(text: str, changes: Changes) -> tuple[int, int]:
    """The uid and gid that `text` means in this tree.

    Raises:
        LaminaError: kind INVALID for an unknown name or a number out of range.
    """
    user, colon, group = text.partition(":")
    uid, gid = _user(user, changes) if user else (0, 0)
    if colon and group:
        gid = _group(group, changes)
    return uid, gid


def _user(text: str, changes: Changes) -> tuple[int, int]:
    if _is_number(text):
        return _number(text), _number(text)
    for name, _password, uid, gid, *_rest in _rows(changes, b"etc/passwd", 4):
        if name == text and _is_number(uid) and _is_number(gid):
            return _number(uid), _number(gid)
    if text == "root":
        return 0, 0
    raise _unknown("user", text, "/etc/passwd")


def _group(text: str, changes: Changes) -> int:
    if _is_number(text):
        return _number(text)
    for name, _password, gid, *_rest in _rows(changes, b"etc/group", 3):
        if name == text and _is_number(gid):
            return _number(gid)
    if text == "root":
        return 0
    raise _unknown("group", text, "/etc/group")


def _rows(changes: Changes, path: bytes, least: int) -> list[list[str]]:
    place = changes.resolve(path)
    found = changes.lookup(place)
    if found is None:
        return []
    what = f"/{path.decode()} of the image"
    if found.type is not EntryType.FILE:  # checked again after it is open
        raise LaminaError(f"{what} is not a regular file", kind=Kind.INVALID)
    data = changes.read_small(place, limit=MAX_DATABASE)
    rows = [line.split(":") for line in data.decode("utf-8", "surrogateescape").splitlines()]
    return [row for row in rows if len(row) >= least]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _number(text: str) -> int:
    number = int(text) if len(text) <= 10 else _MAX_ID + 1
    if number > _MAX_ID:
        raise LaminaError(f"invalid id {text}: greater than {_MAX_ID}", kind=Kind.INVALID)
    return number


def _unknown(kind: str, name: str, place: str) -> LaminaError:
    return LaminaError(
        f"unable to find {kind} {name}: no matching entries in {place} of the image",
        kind=Kind.INVALID,
        hint=f"add the {kind} in an earlier step, or write its number",
    )
