# SPDX-License-Identifier: Apache-2.0
"""`--chmod`: octal, or symbolic as chmod(1) (`u=rwX,go=rX`), as BuildKit's BSD `setmode` reads it.

There is no umask: `+x` is `a+x`. `X` is an `x` for directories and for files that had any `x`
before. `g=u` copies bits. Clauses are applied from left to right.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

_OCTAL_LIMIT = 0o7777
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o0007, "a": 0o6777}
_CLASSES = {"u": 6, "g": 3, "o": 0}  # shift of a class's rwx
_STICKY = 0o1000
_SET_ID = 0o6000
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_ANY_X = 0o111
_MAX_LENGTH = 256


class InvalidMode(LaminaError):
    kind = Kind.INVALID


class _Change(Record):
    """`who` bits (0: nobody was named), one of `+-=`, and the permission letters."""

    who: int
    operator: str
    letters: str


class FileMode(Record):
    """A parsed `--chmod`: `octal`, or `changes` to the mode that a file has."""

    octal: int | None = None
    changes: tuple[_Change, ...] = ()

    @staticmethod
    def parse(text: str) -> FileMode:
        """The mode. Raises InvalidMode."""
        if text and all(char in "01234567" for char in text):
            if len(text) <= 16 and int(text, 8) <= _OCTAL_LIMIT:
                return FileMode(int(text, 8))
            raise _invalid(text)
        if not text or text[0].isdigit() or len(text) > _MAX_LENGTH:
            raise _invalid(text)
        changes: list[_Change] = []
        for clause in text.split(","):
            changes += _clause(clause, text)
        return FileMode(None, tuple(changes))

    def apply(self, mode: int, *, is_dir: bool) -> int:
        """The permission bits (07777) of a file that had `mode`."""
        if self.octal is not None:
            return self.octal
        before = mode & 0o7777
        mode = before
        for change in self.changes:
            mode = _apply(change, mode, has_x=is_dir or bool(before & _ANY_X))
        return mode


def _invalid(text: str) -> InvalidMode:
    return InvalidMode(
        f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777",
        hint="or symbolic, such as u=rwX,go=rX",
    )


def _clause(clause: str, text: str) -> list[_Change]:
    at = 0
    who = 0
    while at < len(clause) and clause[at] in _WHO:
        who |= _WHO[clause[at]]
        at += 1
    changes: list[_Change] = []
    while at < len(clause):
        operator = clause[at]
        if operator not in "+-=":
            raise _invalid(text)
        at += 1
        start = at
        while at < len(clause) and clause[at] in "rwxXstugo":
            at += 1
        changes.append(_Change(who, operator, clause[start:at]))
    if not changes:
        raise _invalid(text)
    return changes


def _apply(change: _Change, mode: int, *, has_x: bool) -> int:
    who = change.who
    only_other = bool(who) and not who & ~0o007
    allowed = who or _OCTAL_LIMIT
    cleared = who or 0o6777
    bits = 0
    for letter in change.letters:
        if letter in _BITS:
            bits |= _BITS[letter]
        elif letter == "X":
            bits |= _ANY_X if has_x else 0
        elif letter == "s":
            bits |= 0 if only_other else _SET_ID
        elif letter == "t":
            if not only_other:
                bits |= _STICKY
                allowed |= _STICKY
                cleared |= _STICKY
        else:
            bits |= ((mode >> _CLASSES[letter]) & 0o7) * 0o111
    bits &= allowed
    if change.operator == "+":
        return mode | bits
    if change.operator == "-":
        return mode & ~bits
    if change.letters and all(letter in _CLASSES for letter in change.letters):
        cleared &= 0o777  # copying between classes leaves setuid and the like alone
    return mode & ~cleared | bits
