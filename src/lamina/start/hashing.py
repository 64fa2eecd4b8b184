# SPDX-License-Identifier: Apache-2.0
"""`sha256` for short inputs, without loading OpenSSL.

Loading libcrypto takes 3 to 4 ms, more than all hashing of a cached build. CPython's own SHA-256
does not use the processor's instructions and has a quarter of OpenSSL's speed: once a process has
hashed `SMALL` bytes, loading it pays. `Sha256` finds out how much there is.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import _Hash, sha256
else:
    try:
        from _sha2 import sha256  # 3.12 and later
    except ImportError:
        try:
            from _sha256 import sha256
        except ImportError:  # a build with OpenSSL only
            from hashlib import sha256

__all__ = ["SMALL", "Sha256", "sha256", "sha256_of"]

SMALL = 512 * 1024  # bytes, of all calls of a process together
_hashed = 0  # a guide only: threads may lose an addition


def sha256_of(data: bytes | memoryview) -> _Hash:
    """The hash object fed with `data`, from OpenSSL when that pays."""
    global _hashed
    _hashed += len(data)
    if _hashed < SMALL:
        return sha256(data)
    import hashlib

    return hashlib.sha256(data)


class Sha256:
    """A SHA-256 fed in pieces. Up to SMALL bytes are kept and hashed when the digest is asked for."""

    __slots__ = ("_hash", "_pieces", "_size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._hash: _Hash | None = None

    def update(self, data: bytes | memoryview) -> None:
        """Add bytes; another thread may run meanwhile if there are many."""
        if self._hash is None:
            self._size += len(data)
            if self._size < SMALL:
                self._pieces.append(bytes(data))
                return
            import hashlib

            self._hash = hashlib.sha256()
            for piece in self._pieces:
                self._hash.update(piece)
            self._pieces = []
        self._hash.update(data)

    def digest(self) -> bytes:
        """The 32 bytes of what was added so far."""
        return self._final().digest()

    def hexdigest(self) -> str:
        """The same as 64 hexadecimal digits."""
        return self._final().hexdigest()

    def _final(self) -> _Hash:
        return sha256_of(b"".join(self._pieces)) if self._hash is None else self._hash
