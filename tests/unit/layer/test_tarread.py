# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import io
import sys
import tarfile
from typing import Any

import pytest

from lamina.errors import Kind, LaminaError
from lamina.layer.compress import decompressed
from lamina.layer.entry import Entry, EntryType
from lamina.layer.tarread import read_tar
from lamina.layer.tarwrite import write_tar


def entries(data: bytes) -> list[Entry]:
    return [entry for entry, _ in read_tar(io.BytesIO(data))]


def contents(data: bytes) -> dict[bytes, bytes]:
    return {entry.path: reader.read() for entry, reader in read_tar(io.BytesIO(data))}


def block(
    name: bytes = b"f", *, flag: bytes = b"0", size: bytes = b"00000000000", **at: bytes
) -> bytes:
    """A header block with a right checksum; `at` sets bytes at an offset (`at_257=...`)."""
    head = bytearray(512)
    head[0 : len(name)] = name
    head[100:124] = b"0000644\0" + b"0000000\0" + b"0000000\0"
    head[124 : 124 + len(size)] = size
    head[136:147] = b"00000000000"
    head[156:157] = flag
    head[257:265] = b"ustar\00000"
    for offset, value in at.items():
        start = int(offset.removeprefix("at_"))
        head[start : start + len(value)] = value
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def pax(*records: tuple[bytes, bytes], flag: bytes = b"x") -> bytes:
    body = b""
    for key, value in records:
        length = len(key) + len(value) + 3
        total = length + len(str(length))
        total += len(str(total)) != len(str(length))
        body += b"%d %b=%b\n" % (total, key, value)
    return raw_pax(body, flag=flag)


def raw_pax(body: bytes, *, flag: bytes = b"x") -> bytes:
    return block(b"pax", flag=flag, size=b"%011o" % len(body)) + body + bytes(-len(body) % 512)


def refused(data: bytes, why: str = ".") -> None:
    with pytest.raises(LaminaError, match=why) as caught:
        list(read_tar(io.BytesIO(data)))
    assert caught.value.kind is Kind.INVALID


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_tarfile_writes_is_read(form: int) -> None:
    out = io.BytesIO()
    long = "d" * 60 + "/" + "n" * 90
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        info = tarfile.TarInfo(long)
        info.size, info.mode, info.uid, info.mtime = 3, 0o4711, 12, 77
        tar.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("l")
        link.type, link.linkname = tarfile.LNKTYPE, "./" + long[:90]
        tar.addfile(link)
        device = tarfile.TarInfo("dev")
        device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 5, 1
        tar.addfile(device)
    file, hard, node = entries(out.getvalue())
    assert (file.path, file.mode, file.uid) == (long.encode(), 0o4711, 12)
    assert (file.size, file.mtime_ns) == (3, 77 * 10**9)
    assert (hard.type, hard.linkname, hard.size) == (EntryType.HARDLINK, long[:90].encode(), 0)
    assert (node.devmajor, node.devminor) == (5, 1)


def test_very_long_gnu_names_and_links_are_read() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo("n" * 250 + "/" + "m" * 250)
        info.type, info.linkname = tarfile.SYMTYPE, "t" * 2000
        tar.addfile(info)
    (entry,) = entries(out.getvalue())
    assert len(entry.path) == 501
    assert entry.linkname == b"t" * 2000


def test_content_not_read_is_passed_over() -> None:
    data = block(b"a", size=b"%011o" % 1000) + b"x" * 1024 + block(b"b", size=b"%011o" % 3)
    data += b"yyy" + bytes(509)
    seen = []
    for entry, reader in read_tar(io.BytesIO(data)):
        seen.append((entry.path, reader.read(2)))
    assert seen == [(b"a", b"xx"), (b"b", b"yy")]


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/etc/x", b"etc/x"),
        (b"./a", b"a"),
        (b"../../a", b"a"),
        (b"a/../../b", b"b"),
        (b"a//b/./c", b"a/b/c"),
        (b"a/b/", b"a/b"),
        (b"...", b"..."),
    ],
)
def test_names_are_taken_relative_to_the_root(raw: bytes, path: bytes) -> None:
    assert entries(block(raw))[0].path == path


@pytest.mark.parametrize("name", [b"./", b".", b"/", b"a/.."])
def test_root_directory_has_the_empty_path(name: bytes) -> None:
    assert entries(block(name, flag=b"5"))[0].path == b""


def test_directory_without_a_name_is_the_root_and_reading_goes_on() -> None:
    data = block(b"a") + block(b"", flag=b"5") + block(b"b") + bytes(1024)
    assert [entry.path for entry in entries(data)] == [b"a", b"", b"b"]


@pytest.mark.parametrize("name", [b"..", b"", b"."])
@pytest.mark.parametrize("flag", [b"0", b"2", b"1", b"3"])
def test_root_as_anything_but_a_directory_is_refused(name: bytes, flag: bytes) -> None:
    refused(block(name, flag=flag, at_157=b"x"), "names the root")


def test_empty_gnu_long_name_leaves_the_name_of_the_header() -> None:
    data = block(b"././@LongLink", flag=b"L", size=b"%011o" % 1) + bytes(512) + block(b"b")
    assert [entry.path for entry in entries(data)] == [b"b"]


def test_pax_records_override_the_header_and_keep_raw_bytes() -> None:
    data = pax(
        (b"path", b"caf\xe9"),
        (b"uid", b"4000000000"),
        (b"mtime", b"1577836800.123456789123"),
        (b"SCHILY.xattr.user.b", b"2\n\0"),
        (b"SCHILY.xattr.user.a%3D", b""),
    )
    (entry,) = entries(data + block(b"short"))
    assert (entry.path, entry.uid) == (b"caf\xe9", 4_000_000_000)
    assert entry.mtime_ns == 1577836800123456789
    assert entry.xattrs == ((b"user.a=", b""), (b"user.b", b"2\n\0"))


def test_pax_mtime_before_1970() -> None:
    assert entries(pax((b"mtime", b"-1.5")) + block())[0].mtime_ns == -1_500_000_000


def test_global_header_lasts_until_changed_and_local_ones_do_not() -> None:
    data = pax((b"uid", b"5"), (b"comment", b"x"), flag=b"g") + block(b"a")
    data += pax((b"uid", b"6")) + block(b"b") + block(b"c")
    assert [entry.uid for entry in entries(data)] == [5, 6, 5]


@pytest.mark.parametrize("key", [b"path", b"linkpath", b"size", b"GNU.sparse.map"])
def test_global_header_that_names_one_member_is_refused(key: bytes) -> None:
    refused(pax((key, b"1"), flag=b"g") + block(), "global pax header")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"7 a=b\nx",
        b"99 a=b\n",
        b"3 a=b\n",
        b"0 a=b\n",
        b"-6 a=b\n",
        b"a=b\n",
        b"6 a=b ",
        b"5 =b\n",
        b"5 ab\n",
        b"7 a\0=b\n",
        b"1_0 a=bcd\n",
        b"4 \n\n",
    ],
)
def test_malformed_pax_records_are_refused(body: bytes) -> None:
    if body:
        refused(raw_pax(body) + block(), "malformed record")
    else:
        assert entries(raw_pax(body) + block())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"size", b"-1"),
        (b"size", b"9999999999999999999"),
        (b"size", b"1 "),
        (b"uid", b"x"),
        (b"uid", b"4294967295"),
        (b"gid", b"1.5"),
        (b"mtime", b"1e9"),
        (b"mtime", b"."),
        (b"mtime", b"9" * 19),
        (b"path", b"a\0b"),
        (b"path", b"n" * 4096),
        (b"SCHILY.xattr.", b"x"),
    ],
)
def test_invalid_pax_values_are_refused(key: bytes, value: bytes) -> None:
    refused(pax((key, value)) + block())


def test_extended_header_larger_than_the_cap_is_refused_unread() -> None:
    refused(block(flag=b"x", size=b"%011o" % ((1 << 20) + 1)), "limit")
    refused(block(flag=b"L", size=b"%011o" % ((1 << 20) + 1)), "limit")


def test_endless_extended_headers_are_refused() -> None:
    refused(pax((b"comment", b"x")) * 40 + block(), "in a row")


@pytest.mark.parametrize(
    ("flag", "why"),
    [(b"V", "volume label"), (b"D", "dump"), (b"M", "multi-volume"), (b"Z", "unknown")],
)
def test_members_that_a_layer_cannot_hold_are_refused_by_name(flag: bytes, why: str) -> None:
    refused(block(b"thing", flag=flag), "'thing' is .*" + why)


def test_base_256_numbers_are_read_with_their_sign() -> None:
    big = b"\x80" + (9 << 30).to_bytes(11, "big")
    entry, reader = next(read_tar(io.BytesIO(block(size=big))))
    assert entry.size == 9 << 30
    with pytest.raises(LaminaError, match="middle of 'f'"):
        reader.read(10)
    negative = (-5 % (1 << 96)).to_bytes(12, "big")
    assert entries(block(at_136=negative))[0].mtime_ns == -5 * 10**9
    refused(block(size=negative), "invalid size")


@pytest.mark.parametrize(
    "field", [b"0000008\0", b"+000644\0", b"00_0644\0", b"00 0644\0", b"abc\0"]
)
def test_malformed_octal_numbers_are_refused(field: bytes) -> None:
    refused(block(at_100=field.ljust(8, b"\0")), "invalid mode")


def test_padded_octal_numbers_are_read() -> None:
    assert entries(block(at_100=b"   644 \0"))[0].mode == 0o644
    assert entries(block(at_100=bytes(8)))[0].mode == 0


def test_wrong_checksum_is_refused_with_the_offset() -> None:
    damaged = bytearray(block(b"a") + block(b"b"))
    damaged[512] ^= 1
    refused(bytes(damaged), "byte 512: the checksum")


def test_signed_checksum_of_old_tars_is_accepted() -> None:
    head = bytearray(block(b"caf\xe9"))
    head[148:156] = b"%06o\0 " % (int(head[148:154], 8) - 256)
    assert entries(bytes(head))[0].path == b"caf\xe9"


@pytest.mark.parametrize("cut", [1, 511, 513, 700, 1023])
def test_archive_cut_short_is_refused(cut: int) -> None:
    data = block(size=b"%011o" % 600) + b"x" * 600 + bytes(424)
    refused(data[:cut], "ends in the middle")


def test_archive_without_its_end_blocks_is_accepted() -> None:
    assert len(entries(block())) == 1
    assert len(entries(block() + bytes(512))) == 1
    assert entries(b"") == []


def test_what_follows_the_end_is_not_read_as_members() -> None:
    assert len(entries(block(b"a") + bytes(1024) + block(b"b"))) == 1


def test_stream_is_read_to_its_end_where_compressed_data_has_its_checksum() -> None:
    tar = block(b"a") + bytes(1024) + bytes(3 << 20)
    damaged = bytearray(gzip.compress(tar))
    damaged[-8] ^= 1
    with pytest.raises(LaminaError, match="corrupt") as caught:
        list(read_tar(decompressed(io.BytesIO(damaged))))
    assert caught.value.kind is Kind.INTEGRITY


def test_lone_zero_block_between_members_is_refused() -> None:
    refused(block(b"a") + bytes(512) + block(b"b"), "follows a zero block")


def test_archive_that_ends_after_an_extended_header_is_refused() -> None:
    refused(pax((b"path", b"x")), "after an extended header")
    refused(pax((b"path", b"x")) + bytes(1024), "after an extended header")


def test_links_to_nothing_are_refused() -> None:
    refused(block(b"l", flag=b"2"), "link target")
    refused(block(b"l", flag=b"1", at_157=b".."), "hard link to the root")


def test_size_of_members_without_content_is_ignored() -> None:
    data = block(b"d/", flag=b"5", size=b"%011o" % 999) + block(b"f")
    assert [entry.path for entry in entries(data)] == [b"d", b"f"]


def test_old_directory_is_a_file_with_a_trailing_slash() -> None:
    assert entries(block(b"d/", flag=b"\0"))[0].type is EntryType.DIR
    assert entries(block(b"d", flag=b"\0"))[0].type is EntryType.FILE


def gnu_sparse(realsize: int, *segments: tuple[int, int], stored: bytes) -> bytes:
    table = b"".join(b"%011o\0%011o\0" % s for s in segments[:4])
    more = segments[4:]
    at = {"at_386": table, "at_483": b"%011o\0" % realsize, "at_257": b"ustar  \0"}
    at["at_482"] = b"\1" if more else b"\0"
    data = block(flag=b"S", size=b"%011o" % len(stored), **at)
    while more:
        part, more = more[:21], more[21:]
        extra = b"".join(b"%011o\0%011o\0" % s for s in part).ljust(504, b"\0")
        data += extra + (b"\1" if more else b"\0") + bytes(7)
    return data + stored + bytes(-len(stored) % 512) + bytes(1024)


def test_old_gnu_sparse_file_is_expanded() -> None:
    segments = [(n * 10, 2) for n in range(30)]
    stored = b"".join(b"%02d" % n for n in range(30))
    expected = b"".join(b"%02d" % n + bytes(8) for n in range(30)) + bytes(7)
    data = gnu_sparse(307, *segments, stored=stored)
    assert contents(data) == {b"f": expected}
    assert entries(data)[0].size == 307


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_pax_sparse_files_are_expanded(version: str) -> None:
    stored = b"abcdefgh"
    real = (b"GNU.sparse.name", b"real")
    if version == "0.0":
        records = [(b"GNU.sparse.size", b"1000"), (b"GNU.sparse.numblocks", b"2")]
        for offset, length in ((b"0", b"3"), (b"500", b"5")):
            records += [(b"GNU.sparse.offset", offset), (b"GNU.sparse.numbytes", length)]
    elif version == "0.1":
        records = [(b"GNU.sparse.size", b"1000"), (b"GNU.sparse.map", b"0,3,500,5"), real]
    else:
        records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), real]
        records.append((b"GNU.sparse.realsize", b"1000"))
        stored = b"2\n0\n3\n500\n5\n".ljust(512, b"\0") + stored
    data = pax(*records) + block(b"real", size=b"%011o" % len(stored))
    data += stored + bytes(-len(stored) % 512) + block(b"next")
    found = contents(data)
    assert found == {b"real": b"abc" + bytes(497) + b"defgh" + bytes(495), b"next": b""}


def test_holes_can_be_passed_over_without_reading_zeros() -> None:
    data = gnu_sparse(1 << 33, (0, 3), (1 << 32, 3), stored=b"abcdef")
    _, reader = next(read_tar(io.BytesIO(data)))
    assert reader.hole() == 0
    assert reader.read(100) == b"abc"
    assert reader.hole() == (1 << 32) - 3
    assert reader.read(100) == b"def"
    assert reader.hole() == (1 << 33) - (1 << 32) - 3
    assert reader.read(100) == b""


@pytest.mark.parametrize(
    "segments",
    [[(5, 3), (0, 3)], [(0, 3), (2, 3)], [(0, 3), (98, 3)], [(0, 5)], [(0, 7)]],
)
def test_sparse_maps_that_do_not_fit_are_refused(segments: list[tuple[int, int]]) -> None:
    refused(gnu_sparse(100, *segments, stored=b"abcdef"), "sparse file")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"x\n",
        b"1\n0\n",
        b"99999999\n0\n6\n",
        b"1\n-1\n6\n",
        b"1" * 2000,
        b"1\n0\n" + b"9" * 40 + b"\n",
    ],
)
def test_malformed_pax_sparse_1_0_maps_are_refused(text: bytes) -> None:
    records = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"6")]
    stored = text.ljust(-(-max(len(text), 1) // 512) * 512, b"\0")
    refused(pax(*records) + block(size=b"%011o" % len(stored)) + stored, "sparse file")


def test_memory_stays_flat_over_many_entries() -> None:
    one = block(b"dir/file", size=b"%011o" % 600) + b"x" * 1024

    class Endless:
        left = 100_000

        def read(self, size: int = -1) -> bytes:
            self.left -= 500
            return one * 500 if self.left >= 0 else b""

    endless: Any = Endless()
    blocks = [
        sys.getallocatedblocks()
        for number, _ in enumerate(read_tar(endless))
        if number % 10_000 == 9_999
    ]
    assert len(blocks) == 10
    assert max(blocks[1:]) - blocks[0] < 500


def test_our_own_archives_are_read_back_the_same() -> None:
    items = [
        (Entry(b"", EntryType.DIR, 0o755), None),
        (Entry(b"a", EntryType.DIR, 0o2755, mtime_ns=10**18), None),
        (Entry(b"a/f", EntryType.FILE, 0o644, size=3, xattrs=((b"user.x", b"y"),)), b"abc"),
        (Entry(b"a/l", EntryType.HARDLINK, 0o644, linkname=b"a/f"), None),
        (Entry(b"n", EntryType.CHAR, 0o666, devmajor=1, devminor=3), None),
        (Entry(b"p", EntryType.FIFO, 0o600), None),
    ]
    out = io.BytesIO()
    write_tar(items, out.write)
    assert entries(out.getvalue()) == [entry for entry, _ in items]
