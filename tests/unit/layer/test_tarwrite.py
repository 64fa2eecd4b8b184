# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from lamina.errors import Kind, LaminaError
from lamina.layer.entry import Entry, EntryType, sort_key
from lamina.layer.tarwrite import write_tar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.layer.entry import Content


def written(*items: tuple[Entry, Content], clamp_mtime: int | None = None) -> bytes:
    out = io.BytesIO()
    total = write_tar(items, out.write, clamp_mtime=clamp_mtime)
    assert total == len(out.getvalue())
    return out.getvalue()


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


FILE = Entry(b"a/b", EntryType.FILE, 0o4755, uid=7, gid=8, size=5, mtime_ns=9_900_000_000)


def test_bytes_are_pinned() -> None:
    import hashlib

    data = written(
        (Entry(b"a", EntryType.DIR, 0o755, mtime_ns=10**9), None),
        (FILE, b"hello"),
        (Entry(b"a/" + b"x" * 120, EntryType.SYMLINK, 0o777, linkname=b"b"), None),
    )
    # A change here changes the diffID of every layer that lamina makes: see ADR 0010.
    assert hashlib.sha256(data).hexdigest() == (
        "3245ec6ac97e37c5cd7bf3b91e265c036246742412b42916c1ef85a2cb7967ea"
    )


def test_plain_entry_takes_one_ustar_header() -> None:
    data = written((FILE, b"hello"))
    assert len(data) == 4 * 512
    assert data[257:265] == b"ustar\00000"
    (info,) = members(data)
    assert (info.name, info.mode, info.uid, info.gid) == ("a/b", 0o4755, 7, 8)
    assert (info.size, info.mtime, info.uname, info.gname) == (5, 9, "", "")


def test_fraction_of_mtime_is_cut_off_and_clamp_lowers_later_ones() -> None:
    assert members(written((FILE, b"hello")))[0].mtime == 9
    assert members(written((FILE, b"hello"), clamp_mtime=4))[0].mtime == 4
    assert members(written((FILE, b"hello"), clamp_mtime=40))[0].mtime == 9


def test_mtime_before_1970_is_written_as_pax() -> None:
    entry = Entry(b"f", EntryType.FILE, 0o644, mtime_ns=-1_500_000_000)
    assert members(written((entry, b"")))[0].mtime == -2


@pytest.mark.parametrize("length", [99, 100, 101, 200, 256, 257, 1000, 4095])
def test_names_of_every_length_are_read_back_by_tarfile(length: int) -> None:
    name = (b"d" * 49 + b"/") * (length // 50) + b"n" * (length % 50)
    name = name[:-1] + b"n"
    assert members(written((Entry(name, EntryType.FILE, 0o644), b"")))[0].name == name.decode()


def test_name_without_a_place_to_split_uses_pax() -> None:
    name = b"n" * 180
    data = written((Entry(name, EntryType.FILE, 0o644), b""))
    assert data[156:157] == b"x"
    assert members(data)[0].name == name.decode()


def test_prefix_is_used_where_it_fits_so_that_no_pax_header_is_needed() -> None:
    name = b"p" * 90 + b"/" + b"n" * 90
    data = written((Entry(name, EntryType.FILE, 0o644), b""))
    assert data[156:157] == b"0"
    assert members(data)[0].name == name.decode()


def test_name_that_is_not_utf_8_keeps_its_bytes() -> None:
    data = written((Entry(b"caf\xe9", EntryType.FILE, 0o644), b""))
    assert b"13 path=caf\xe9\n" in data
    assert os.fsencode(members(data)[0].name) == b"caf\xe9"


def test_big_numbers_and_xattrs_are_pax_records() -> None:
    entry = Entry(
        b"f",
        EntryType.FILE,
        0o644,
        uid=3_000_000,
        gid=4_000_000_000,
        xattrs=((b"security.capability", b"\0\1\n\xff"), (b"user.a=b%c", b"")),
    )
    data = written((entry, b""))
    assert b"SCHILY.xattr.security.capability=\0\1\n\xff\n" in data
    assert b"SCHILY.xattr.user.a%3Db%25c=\n" in data
    (info,) = members(data)
    assert (info.uid, info.gid) == (3_000_000, 4_000_000_000)


def test_size_above_8_gib_is_a_pax_record() -> None:
    from lamina.layer.tarwrite import header

    head = header(Entry(b"big", EntryType.FILE, 0o644, size=9 << 30))
    assert b"19 size=9663676416\n" in head


@pytest.mark.parametrize("path", [b"f", b"d/" + b"n" * 97, b"n" * 99])
@pytest.mark.parametrize("kind", [EntryType.FILE, EntryType.DIR])
def test_short_way_to_a_plain_header_gives_the_same_bytes(path: bytes, kind: EntryType) -> None:
    from lamina.layer.tarwrite import _full, _plain

    entry = Entry(path, kind, 0o4751, uid=0o7777777, gid=5, size=0, mtime_ns=7 * 10**9)
    assert _plain(entry, 7) == _full(entry, 7)


def test_root_directory_is_written_as_dot_slash() -> None:
    assert written((Entry(b"", EntryType.DIR, 0o755), None))[:3] == b"./\0"


@pytest.mark.parametrize("content", [b"hell", b"hello!", None])
def test_content_of_another_length_is_refused(content: bytes | None) -> None:
    with pytest.raises(LaminaError, match="changed while it was read") as caught:
        written((FILE, content))
    assert caught.value.kind is Kind.CONFLICT


@pytest.mark.parametrize("real", [3, 9, 2 << 20])
def test_file_that_shrank_or_grew_is_refused_and_closed(real: int, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * real)
    opened: list[int] = []

    def content() -> int:
        opened.append(os.open(path, os.O_RDONLY))
        return opened[0]

    with pytest.raises(LaminaError, match="changed while it was read"):
        written((FILE, content))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


def test_big_file_that_grew_by_one_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * ((1 << 20) + 1))
    entry = Entry(b"f", EntryType.FILE, 0o644, size=1 << 20)
    with pytest.raises(LaminaError, match="changed while it was read"):
        written((entry, lambda: os.open(path, os.O_RDONLY)))


def test_name_with_nul_and_name_of_4096_bytes_are_refused() -> None:
    for name in (b"a\0b", b"n/" * 2048):
        with pytest.raises(LaminaError) as caught:
            written((Entry(name, EntryType.FILE, 0o644), b""))
        assert caught.value.kind is Kind.INVALID


def test_xattrs_beyond_the_cap_are_refused() -> None:
    xattrs = tuple((b"user.%d" % n, bytes(60_000)) for n in range(20))
    with pytest.raises(LaminaError, match="larger than"):
        written((Entry(b"f", EntryType.FILE, 0o644, xattrs=xattrs), b""))


def test_order_is_by_component_with_whiteouts_first() -> None:
    paths = [b"a", b"a/.wh..wh..opq", b"a/.wh.x", b"a/!", b"a/b", b"a/b/c", b"a.b", b"b"]
    assert sorted(frozenset(paths), key=sort_key) == paths
