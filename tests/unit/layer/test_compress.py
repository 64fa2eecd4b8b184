# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import bz2
import gzip
import importlib
import io
import lzma
import random
import subprocess
import sys

import pytest

from lamina.errors import Kind, LaminaError
from lamina.layer.compress import CHUNK, COMPRESSIONS, compressor, decompressed

SAMPLE = random.Random(1).randbytes(700_000) + bytes(2_000_000) + b"text " * 300_000


def packed(data: bytes, name: str, *, level: int | None = None, step: int = 1 << 30) -> bytes:
    out = bytearray()
    target = compressor(name, out.extend, level=level)
    for at in range(0, len(data), step):
        target.write(data[at : at + step])
    target.close()
    return bytes(out)


def unpacked(data: bytes) -> bytes:
    return decompressed(io.BytesIO(data)).read()


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_every_compression_reads_back_what_it_wrote(name: str) -> None:
    assert unpacked(packed(SAMPLE, name)) == SAMPLE
    assert unpacked(packed(b"", name)) == b""


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_bytes_do_not_depend_on_the_callers_pieces(name: str) -> None:
    whole = packed(SAMPLE, name)
    for step in (4093, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK):
        assert packed(SAMPLE, name, step=step) == whole


@pytest.mark.parametrize("level", range(10))
def test_every_gzip_level_is_read_by_the_standard_library(level: int) -> None:
    assert gzip.decompress(packed(SAMPLE, "gzip", level=level)) == SAMPLE


def test_gzip_header_has_no_time_and_no_name() -> None:
    assert packed(b"x", "gzip")[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


@pytest.mark.parametrize("level", [1, 3, 19])
def test_zstd_levels(level: int) -> None:
    assert unpacked(packed(SAMPLE, "zstd", level=level)) == SAMPLE


def test_zstd_finds_repetitions_8_mib_apart() -> None:
    noise = random.Random(1).randbytes(7 << 20)
    assert len(packed(noise + noise, "zstd")) < 1.02 * len(noise)
    assert len(packed(noise + noise, "zstd", level=1)) > 1.9 * len(noise)


@pytest.mark.parametrize(("name", "level"), [("gzip", 10), ("gzip", -1), ("zstd", 0), ("zstd", 23)])
def test_levels_out_of_range_are_refused(name: str, level: int) -> None:
    with pytest.raises(LaminaError, match="no compression level") as caught:
        compressor(name, bytearray().extend, level=level)
    assert caught.value.kind is Kind.INVALID


def test_level_of_uncompressed_and_unknown_names_are_refused() -> None:
    with pytest.raises(LaminaError, match="no compression level"):
        compressor("uncompressed", bytearray().extend, level=1)
    with pytest.raises(LaminaError, match="unknown layer compression 'estargz'") as caught:
        compressor("estargz", bytearray().extend)
    assert caught.value.kind is Kind.UNSUPPORTED


def test_several_members_are_read_as_one() -> None:
    assert unpacked(gzip.compress(b"a") + gzip.compress(b"") + gzip.compress(b"b")) == b"ab"
    assert unpacked(bz2.compress(b"a") + bz2.compress(b"b")) == b"ab"
    assert unpacked(lzma.compress(b"a") + lzma.compress(b"b")) == b"ab"
    assert unpacked(packed(b"a", "zstd") + packed(b"b", "zstd")) == b"ab"


def test_zstd_skippable_frames_are_passed_over() -> None:
    skip = b"\x5e\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    assert unpacked(skip + packed(b"a", "zstd") + skip) == b"a"


def test_zero_padding_after_gzip_is_accepted_and_other_bytes_are_not() -> None:
    assert unpacked(gzip.compress(b"a") + bytes(5000)) == b"a"
    with pytest.raises(LaminaError, match="unknown bytes after gzip") as caught:
        unpacked(gzip.compress(b"a") + bytes(50) + b"junk")
    assert caught.value.kind is Kind.INTEGRITY


@pytest.mark.parametrize("data", [b"", b"x", b"\x1f", b"BZhello", b"plain text", bytes(3 * CHUNK)])
def test_what_has_no_magic_is_passed_on(data: bytes) -> None:
    assert unpacked(data) == data


class Dribble(io.BytesIO):
    """A stream that gives one byte at a time, as a slow socket may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(1, size) if size is not None and size > 0 else 1)


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_reading_in_pieces_gives_the_same(name: str) -> None:
    data = SAMPLE[690_000:720_000]
    reader = decompressed(Dribble(packed(data, name)))
    parts = []
    while part := reader.read(1000):
        parts.append(part)
    assert b"".join(parts) == data
    assert {len(part) for part in parts[:-1]} == {1000}


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz", "bzip2"])
def test_damage_and_truncation_are_integrity_errors(name: str) -> None:
    plain = SAMPLE[:50_000]
    if name in {"xz", "bzip2"}:
        data = lzma.compress(plain) if name == "xz" else bz2.compress(plain)
    else:
        data = packed(plain, name)
    for damaged in (data[: len(data) // 2], data[:-1], flipped(data, len(data) // 2)):
        with pytest.raises(LaminaError) as caught:
            unpacked(damaged)
        assert caught.value.kind is Kind.INTEGRITY
        assert name in caught.value.what


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def test_wrong_gzip_checksum_is_found() -> None:
    data = packed(SAMPLE[:1000], "gzip")
    with pytest.raises(LaminaError, match="gzip data is corrupt"):
        unpacked(flipped(data, len(data) - 8))


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_bombs_are_stopped_by_size_and_by_ratio(name: str) -> None:
    bomb = packed(bytes(100 << 20), name)
    for caps in ({"max_size": 1 << 20}, {"max_ratio": 100}):
        reader = decompressed(io.BytesIO(bomb), **caps)
        seen = 0
        with pytest.raises(LaminaError, match="expands") as caught:  # a loop
            while part := reader.read(CHUNK):
                seen += len(part)
        assert caught.value.kind is Kind.EXHAUSTED
        assert seen <= 66 << 20


def test_zstd_window_beyond_the_cap_is_refused() -> None:
    zstd = importlib.import_module(
        "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    )
    options = {zstd.CompressionParameter.window_log: 28}
    packer = zstd.ZstdCompressor(options=options)
    data = packer.compress(bytes(1000)) + packer.flush()
    with pytest.raises(LaminaError, match="zstd data is corrupt"):
        unpacked(data)


def test_without_isal_gzip_still_works_both_ways() -> None:
    code = """
import io, sys
sys.modules["isal"] = None
from lamina.layer.compress import compressor, decompressed
out = bytearray()
target = compressor("gzip", out.extend)
target.write(b"abc" * 1_000_000)
target.close()
data = bytes(out) + bytes(out) + bytes(10)
assert decompressed(io.BytesIO(data)).read() == b"abc" * 2_000_000
try:
    decompressed(io.BytesIO(bytes(out[:-5]))).read()
except Exception as error:
    assert "too early" in str(error), error
else:
    raise SystemExit("truncation not seen")
"""
    path = ":".join(sys.path)
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": path})
