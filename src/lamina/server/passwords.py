# SPDX-License-Identifier: Apache-2.0
"""An htpasswd file with bcrypt hashes, read again when it changes."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_REMEMBERED = 300.0  # seconds for which a password that was right is not hashed again
_MOST_REMEMBERED = 4096
_BCRYPT = ("$2a$", "$2b$", "$2y$")
# what an unknown user's password is compared with, so that the time tells nothing
_NOBODY = b"$2b$05$abcdefghijklmnopqrstuuMbHnNV0tmPoJZWs1jTVhGEpnDJk7jxq"
_LONGEST = 72  # bytes of a password that bcrypt looks at


class Htpasswd:
    """The users of the file at `path`.

    A right password is remembered as an HMAC under a key of this process, for five minutes or until
    the file changes: bcrypt takes longer than everything else a request does.
    """

    def __init__(self, path: str, *, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._guard = threading.Lock()
        self._stamp: tuple[int, int, int] = (0, 0, 0)
        self._users: dict[str, bytes] = {}
        self._right: dict[bytes, float] = {}
        self._refresh()

    def remembered(self, user: str, password: str) -> bool:
        """Whether the pair was found right not long ago; does not block."""
        until = self._right.get(self._mark(user, password))
        return until is not None and until > self._clock() and self._stamp == self._look()

    def check(self, user: str, password: str) -> bool:
        """Whether the password is the user's; takes the time of a bcrypt hash."""
        import bcrypt

        self._refresh()
        known = self._users.get(user)
        secret = password.encode()
        if len(secret) > _LONGEST or b"\0" in secret:
            return False
        right = bcrypt.checkpw(secret, known or _NOBODY) and known is not None
        if right:
            with self._guard:
                if len(self._right) >= _MOST_REMEMBERED:
                    self._right.clear()
                self._right[self._mark(user, password)] = self._clock() + _REMEMBERED
        return right

    def stamp(self, user: str) -> str:
        """What changes with the user's password; empty for a user who is not known.

        Tells nothing of the password: a hash with a salt is behind it.
        """
        self._refresh()
        known = self._users.get(user)
        return "" if known is None else hashlib.sha256(b"lamina refresh\0" + known).hexdigest()

    def _mark(self, user: str, password: str) -> bytes:
        message = f"{len(user)}:{user}:{password}".encode(errors="surrogatepass")
        return hmac.digest(self._key, message, hashlib.sha256)

    def _look(self) -> tuple[int, int, int]:
        try:
            found = os.stat(self._path)
        except OSError:
            return (0, 0, 0)
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def _refresh(self) -> None:
        stamp = self._look()
        if stamp == self._stamp and self._users:
            return
        users = read_htpasswd(self._path)
        with self._guard:
            self._users = users
            self._right.clear()
            self._stamp = stamp


def read_htpasswd(path: str) -> dict[str, bytes]:
    """Bcrypt hashes by user.

    Raises:
        LaminaError: kind NOT_FOUND, or INVALID with the line of an entry that is not bcrypt.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except FileNotFoundError as error:
        raise LaminaError(f"{path} does not exist", kind=Kind.NOT_FOUND) from error
    found: dict[str, bytes] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, hashed = line.strip().partition(":")
        if not colon or not user or not hashed.startswith(_BCRYPT) or len(hashed) != 60:
            raise LaminaError(
                f"{path}:{number}: not a user and a bcrypt hash",
                kind=Kind.INVALID,
                hint="make entries with: htpasswd -B -c FILE USER",
            )
        if user in {"*", "anonymous"}:
            raise LaminaError(
                f"{path}:{number}: {user!r} is a word of the rules and cannot be a user",
                kind=Kind.INVALID,
            )
        found[user] = hashed.encode()
    return found
