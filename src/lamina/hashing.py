# SPDX-License-Identifier: Apache-2.0
"""`sha256` for short inputs, without loading OpenSSL.

Loading libcrypto takes 3 to 4 ms, more than all hashing of a cached build. CPython's own SHA-256
does not use the processor's instructions and has a quarter of OpenSSL's speed: once a process has
hashed `SMALL` bytes, loading it pays. Layers go to `hashlib` directly.
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

__all__ = ["SMALL", "sha256", "sha256_of"]

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
