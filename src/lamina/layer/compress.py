# SPDX-License-Identifier: Apache-2.0
"""gzip, zstd and none for layers out; those plus xz and bzip2 in (docs/adr/0011-compression.md).

Output is deterministic: the codec sees exact 1 MiB chunks whatever the caller's are, because
ISA-L's bytes depend on them; headers carry no name and no time. It is stable for one version of
the codec's library, not across versions: never key anything on a compressed digest.
"""

from __future__ import annotations

import io

from lamina.errors import Kind, LaminaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import IO, Protocol

    class Encoder(Protocol):
        """A codec's compression object."""

        def compress(self, data: bytes, /) -> bytes: ...
        def flush(self) -> bytes: ...

    class Decoder(Protocol):
        """A codec's decompression object, of one member, stream or frame."""

        @property
        def eof(self) -> bool: ...
        @property
        def needs_input(self) -> bool: ...
        @property
        def unused_data(self) -> bytes: ...
        def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


CHUNK = 1 << 20  # part of the output format, see above
COMPRESSIONS = ("uncompressed", "gzip", "zstd")
ZSTD_LEVEL = 3
# 8 MiB: what RFC 8878 §3.1.1.1.2 asks every decoder to take, and what Go's encoder, which BuildKit
# and buildah have, uses. Levels 1 and 2 (fast) and 20 on (larger already) keep the library's.
_ZSTD_WINDOW_LOG_OUT = 23
_ZSTD_WIDENED = range(3, 20)
ZSTD_WINDOW_LOG = 27  # 128 MiB, the zstd program's own limit for reading
XZ_MEMORY = 160 << 20  # bytes; `xz -9` needs 65 MiB to read
RATIO_FREE = 64 << 20  # bytes of output before `max_ratio` applies: small inputs may be all zeros

# RFC 1952: deflate, no flags, no mtime, no extra flags, operating system unknown.
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_XZ_MAGIC = b"\xfd7zXZ\x00"
_BZIP2_MAGIC = b"BZh"


class Compressor:
    """Rebuffers to exact CHUNKs and writes what the codec gives. Call `close` once, at the end."""

    def __init__(self, encoder: Encoder, write: Callable[[bytes], object]) -> None:
        self._encoder = encoder
        self._write = write
        self._parts: list[bytes] = []
        self._buffered = 0

    def write(self, data: bytes) -> None:
        """Compress `data`, of any length."""
        if len(data) == CHUNK and not self._buffered:
            self._put(self._encoder.compress(data))
            return
        buffered = self._buffered + len(data)
        if buffered < CHUNK:
            self._parts.append(bytes(data))  # it may be a view of a buffer that is filled anew
            self._buffered = buffered
            return
        if self._buffered:
            data = b"".join([*self._parts, data])
        whole = buffered - buffered % CHUNK
        for at in range(0, whole, CHUNK):
            self._put(self._encoder.compress(data[at : at + CHUNK]))
        self._parts = [bytes(data[whole:])]
        self._buffered = buffered - whole

    def close(self) -> None:
        """Write the rest and the trailer."""
        if self._buffered:
            self._put(self._encoder.compress(b"".join(self._parts)))
        self._parts, self._buffered = [], 0
        self._put(self._encoder.flush())

    def _put(self, data: bytes) -> None:
        if data:
            self._write(data)


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


class _Gzip:
    """One gzip member with our own header and trailer around a raw deflate stream."""

    def __init__(self, deflate: Encoder, crc32: Callable[[bytes, int], int]) -> None:
        self._deflate = deflate
        self._crc32 = crc32
        self._crc = 0
        self._size = 0
        self._head = _GZIP_HEADER

    def compress(self, data: bytes, /) -> bytes:
        self._crc = self._crc32(data, self._crc)
        self._size += len(data)
        head, self._head = self._head, b""
        return head + self._deflate.compress(data)

    def flush(self) -> bytes:
        trailer = self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")
        head, self._head = self._head, b""
        return head + self._deflate.flush() + trailer


def compressor(
    name: str, write: Callable[[bytes], object], *, level: int | None = None
) -> Compressor:
    """A compressor for `name`, one of COMPRESSIONS, that calls `write` with compressed bytes.

    gzip levels 0 to 9: 0 to 3 are ISA-L's (default 1), 4 to 9 zlib's own, slower and smaller.
    zstd levels 1 to 22 (default 3). Without the isal package gzip is zlib's at every level.

    Raises:
        LaminaError: UNSUPPORTED for an unknown name or a missing library, INVALID for a level out
            of range.
    """
    if name == "gzip":
        return Compressor(_gzip_encoder(_level(name, level, default=1, lowest=0, highest=9)), write)
    if name == "zstd":
        number = _level(name, level, default=ZSTD_LEVEL, lowest=1, highest=22)
        return Compressor(_zstd_encoder(number), write)
    if name == "uncompressed":
        if level is not None:
            raise LaminaError("an uncompressed layer has no compression level", kind=Kind.INVALID)
        return Compressor(_Plain(), write)
    raise LaminaError(
        f"unknown layer compression {name!r}",
        kind=Kind.UNSUPPORTED,
        hint=f"use one of {', '.join(COMPRESSIONS)}",
    )


def _level(name: str, level: int | None, *, default: int, lowest: int, highest: int) -> int:
    if level is None:
        return default
    if not lowest <= level <= highest:
        raise LaminaError(
            f"{name} has no compression level {level}",
            kind=Kind.INVALID,
            hint=f"use {lowest} to {highest}",
        )
    return level


def _gzip_encoder(level: int) -> Encoder:
    if level <= 3:
        try:
            from isal import isal_zlib
        except ImportError:
            pass
        else:
            raw = isal_zlib.compressobj(level, isal_zlib.DEFLATED, -15)
            return _Gzip(raw, isal_zlib.crc32)
    import zlib

    return _Gzip(zlib.compressobj(level, zlib.DEFLATED, -15), zlib.crc32)


def _zstd_encoder(level: int) -> Encoder:
    zstd = _zstd()
    options = {
        zstd.CompressionParameter.compression_level: level,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    if level in _ZSTD_WIDENED:
        options[zstd.CompressionParameter.window_log] = _ZSTD_WINDOW_LOG_OUT
    encoder: Encoder = zstd.ZstdCompressor(options=options)
    return encoder


def _zstd() -> ModuleType:
    """`compression.zstd` of Python 3.14, or backports.zstd, which has the same interface."""
    import importlib

    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise LaminaError(
        "zstd needs the backports.zstd package on Python before 3.14", kind=Kind.UNSUPPORTED
    )


class Reader(io.BufferedIOBase):
    """Decompressed bytes of a stream: as many members, streams or frames as it holds.

    Does not close the stream it reads. Zero bytes after a gzip member are padding; anything else
    that does not begin a new member is an error.
    """

    def __init__(
        self,
        stream: IO[bytes],
        head: bytes,
        codec: _Codec,
        *,
        max_size: int | None,
        max_ratio: int | None,
    ) -> None:
        self._stream = stream
        self._input = head  # read from the stream, not yet given to the decoder
        self._codec = codec
        self._decoder: Decoder | None = codec.decoder() if codec.decoder else None
        self._max_size = max_size
        self._max_ratio = max_ratio
        self._ended = False
        self._spare = b""  # output beyond what was asked for
        self.bytes_in = len(head)
        self.bytes_out = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Exactly `size` bytes unless the end is near (all if negative); empty at the end.

        Raises:
            LaminaError: INTEGRITY if the data is corrupt or cut short, EXHAUSTED if it expands
                beyond the caps.
        """
        wanted = -1 if size is None else size
        parts = [self._spare] if self._spare else []
        have = len(self._spare)
        self._spare = b""
        while wanted < 0 or have < wanted:
            data = self._some(CHUNK if wanted < 0 else wanted - have)
            if not data:
                break
            parts.append(data)
            have += len(data)
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        if 0 <= wanted < have:
            whole, self._spare = whole[:wanted], whole[wanted:]
        return whole

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(CHUNK if size < 0 else size)

    def _some(self, limit: int) -> bytes:
        """Up to about `limit` bytes, empty at the end."""
        if self._decoder is None:
            data, self._input = self._input or self._fill(), b""
        else:
            data = self._decode(self._decoder, limit)
        self.bytes_out += len(data)
        self._check_caps()
        return data

    def _fill(self) -> bytes:
        data = self._stream.read(CHUNK)
        self.bytes_in += len(data)
        return data

    def _decode(self, decoder: Decoder, limit: int) -> bytes:
        while not self._ended:
            if decoder.eof:
                following = self._next_member(decoder.unused_data)
                if following is None:
                    return b""
                decoder = self._decoder = following
            if decoder.needs_input and not self._input:
                self._input = self._fill()
                if not self._input:
                    raise LaminaError(
                        f"{self._codec.name} data ends too early", kind=Kind.INTEGRITY
                    )
            given, self._input = self._input, b""
            try:
                data = decoder.decompress(given, limit)
            except self._codec.errors as error:
                raise self._codec.failure(error) from error
            if data:
                return data
        return b""

    def _next_member(self, rest: bytes) -> Decoder | None:
        rest += self._input
        self._input = b""
        if self._codec.padded:
            rest = rest.lstrip(b"\0")
        while len(rest) < len(self._codec.magic):
            more = self._fill()
            if not more:
                break
            rest += more
            if self._codec.padded:
                rest = rest.lstrip(b"\0")
        if not rest:
            self._ended = True
            return None
        if not self._codec.begins(rest):
            raise LaminaError(f"unknown bytes after {self._codec.name} data", kind=Kind.INTEGRITY)
        self._input = rest
        assert self._codec.decoder is not None
        return self._codec.decoder()

    def _check_caps(self) -> None:
        size, ratio = self._max_size, self._max_ratio
        if size is not None and self.bytes_out > size:
            raise LaminaError(
                f"{self._codec.name} data expands to more than {size} bytes", kind=Kind.EXHAUSTED
            )
        if ratio is not None and self.bytes_out > max(RATIO_FREE, ratio * self.bytes_in):
            raise LaminaError(
                f"{self._codec.name} data expands more than {ratio} times", kind=Kind.EXHAUSTED
            )


class _Codec:
    """How one compression is read. `padded`: zeros may follow a member (RFC 1952 and xz say so)."""

    def __init__(
        self,
        name: str,
        magic: bytes,
        decoder: Callable[[], Decoder] | None,
        *,
        errors: tuple[type[Exception], ...] = (),
        padded: bool = False,
    ) -> None:
        self.name = name
        self.magic = magic
        self.decoder = decoder
        self.errors = errors
        self.padded = padded

    def begins(self, data: bytes) -> bool:
        """Whether a further member begins with `data`."""
        return data.startswith(self.magic) or (self.name == "zstd" and _is_skippable(data))

    def failure(self, error: Exception) -> LaminaError:
        """The LaminaError for what the codec's library raised."""
        return LaminaError(f"{self.name} data is corrupt: {error}", kind=Kind.INTEGRITY)


def _is_skippable(data: bytes) -> bool:
    """A zstd skippable frame (RFC 8878 §3.1.2), which seekable layers end with."""
    return data[1:4] == b"\x2a\x4d\x18" and data[0] & 0xF0 == 0x50


class _ZlibDecoder:
    """zlib's gzip decompressor with the interface of the other codecs."""

    def __init__(self) -> None:
        import zlib

        self._inner = zlib.decompressobj(31)
        self._rest = b""
        self.needs_input = True
        self.unused_data = b""

    @property
    def eof(self) -> bool:
        return self._inner.eof

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        out = self._inner.decompress(self._rest + data, max(max_length, 0))
        self._rest = self._inner.unconsumed_tail
        self.needs_input = not self._rest and not (max_length > 0 and len(out) >= max_length)
        self.unused_data = self._inner.unused_data
        return out


def decompressed(
    stream: IO[bytes], *, max_size: int | None = None, max_ratio: int | None = None
) -> IO[bytes]:
    """The uncompressed bytes of `stream`, whose compression its first bytes tell (or none).

    Reading raises kind EXHAUSTED once more than `max_size` bytes came out, or (after 64 MiB) more
    than `max_ratio` times what went in; INTEGRITY if the data is corrupt or cut short. The caller
    still closes `stream`.
    """
    head = b""
    while len(head) < len(_XZ_MAGIC) and (more := stream.read(CHUNK)):
        head += more
    codec = _codec_of(head)
    return Reader(  # type: ignore[return-value]  # io's classes are IO in all but name
        stream, head, codec, max_size=max_size, max_ratio=max_ratio
    )


def _codec_of(head: bytes) -> _Codec:
    if head.startswith(_GZIP_MAGIC):
        return _gzip_codec()
    if head.startswith(_ZSTD_MAGIC) or _is_skippable(head):
        return _zstd_codec()
    if head.startswith(_XZ_MAGIC):
        import lzma

        return _Codec(
            "xz",
            _XZ_MAGIC,
            lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY),
            errors=(lzma.LZMAError,),
            padded=True,
        )
    # `BZh`, the level, then the magic of a block or of the end: text may begin with BZh.
    if head.startswith(_BZIP2_MAGIC) and head[4:6] in {b"\x31\x41", b"\x17\x72"}:
        import bz2

        return _Codec("bzip2", _BZIP2_MAGIC, bz2.BZ2Decompressor, errors=(OSError, ValueError))
    return _Codec("uncompressed", b"", None)


def _gzip_codec() -> _Codec:
    try:
        from isal import igzip_lib
    except ImportError:
        import zlib

        return _Codec("gzip", _GZIP_MAGIC, _ZlibDecoder, errors=(zlib.error,), padded=True)
    return _Codec(
        "gzip",
        _GZIP_MAGIC,
        lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP),
        errors=(igzip_lib.error,),  # type: ignore[arg-type]  # the stub has an instance
        padded=True,
    )


def _zstd_codec() -> _Codec:
    zstd = _zstd()
    options = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
    return _Codec(
        "zstd",
        _ZSTD_MAGIC,
        lambda: zstd.ZstdDecompressor(options=options),
        errors=(zstd.ZstdError,),
    )
