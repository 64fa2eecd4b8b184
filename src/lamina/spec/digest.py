# SPDX-License-Identifier: Apache-2.0
"""Digests: `algorithm:hex` of bytes (image-spec descriptor.md §Digests)."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.start.hashing import sha256_of
from lamina.start.record import Record

TYPE_CHECKING = False
# image-spec descriptor.md §Registered algorithms; hex digits of each.
HEX_LENGTH = {"sha256": 64, "sha512": 128}
_HEX = frozenset("0123456789abcdef")


class InvalidDigest(LaminaError):
    kind = Kind.INVALID


class Digest(Record):
    """A parsed digest. `str()` gives `algorithm:hex`; `hex` is lower case and of full length."""

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        length = HEX_LENGTH.get(self.algorithm)
        if length is None:
            raise InvalidDigest(f"unsupported digest algorithm {self.algorithm!r}")
        if len(self.hex) != length or not _HEX.issuperset(self.hex):
            raise InvalidDigest(f"invalid {self.algorithm} digest {self.hex!r}")

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @staticmethod
    def parse(text: str) -> Digest:
        """The digest written as `algorithm:hex`.

        Raises:
            InvalidDigest: wrong shape, unknown algorithm, wrong length or upper case.
        """
        algorithm, colon, digits = text.partition(":")
        if not colon:
            raise InvalidDigest(f"invalid digest {text!r}: expected algorithm:hex")
        return Digest(algorithm, digits)

    @staticmethod
    def of(data: bytes, *, algorithm: str = "sha256") -> Digest:
        """The digest of `data`."""
        if algorithm not in HEX_LENGTH:
            raise InvalidDigest(f"unsupported digest algorithm {algorithm!r}")
        if algorithm == "sha256":
            return Digest(algorithm, sha256_of(data).hexdigest())
        import hashlib

        return Digest(algorithm, hashlib.new(algorithm, data).hexdigest())

    def short(self) -> str:
        """The first twelve hex digits, as Docker prints ids."""
        return self.hex[:12]


if TYPE_CHECKING:

    class DiffID(Digest):
        def __init__(self, digest: Digest) -> None: ...

    class ChainID(Digest):
        def __init__(self, digest: Digest) -> None: ...

else:

    def DiffID(digest: Digest) -> Digest:  # noqa: N802  # a NewType without importing typing
        """The digest of a layer's uncompressed tar (image-spec config.md §Layer DiffID)."""
        return digest

    def ChainID(digest: Digest) -> Digest:  # noqa: N802  # a NewType without importing typing
        """The digest of a stack of layers (image-spec config.md §Layer ChainID)."""
        return digest


Stack = tuple[DiffID, ...]
"""The layers of an image or of a step's result, lowest first."""
