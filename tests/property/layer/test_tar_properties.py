# SPDX-License-Identifier: Apache-2.0
"""What holds for every archive: reading undoes writing, and no bytes break the reader."""

from __future__ import annotations

import gzip
import io

from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.errors import LaminaError
from lamina.layer.compress import compressor, decompressed
from lamina.layer.entry import Entry, EntryType, sort_key
from lamina.layer.tarread import read_tar
from lamina.layer.tarwrite import write_tar
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    Filled = tuple[Entry, bytes]

PART = st.binary(min_size=1, max_size=130).filter(
    lambda b: b not in {b".", b".."} and b"\0" not in b and b"/" not in b
)
PATH = st.lists(PART, min_size=1, max_size=6).map(b"/".join)
LINK = st.binary(min_size=1, max_size=300).filter(lambda b: b"\0" not in b)
XATTRS = st.dictionaries(
    st.binary(min_size=1, max_size=30).filter(lambda b: b"\0" not in b),
    st.binary(max_size=60),
    max_size=3,
).map(lambda d: tuple(sorted(d.items())))
DEVICE = st.integers(0, 0o7777777)


@st.composite
def filled(draw: st.DrawFn) -> Filled:
    kind = draw(st.sampled_from(list(EntryType)))
    content = draw(st.binary(max_size=1500)) if kind is EntryType.FILE else b""
    link = b""
    if kind is EntryType.SYMLINK:
        link = draw(LINK)
    elif kind is EntryType.HARDLINK:
        link = draw(PATH)
    is_device = kind in {EntryType.CHAR, EntryType.BLOCK}
    path = draw(PATH)
    if kind is EntryType.DIR and draw(st.booleans()):
        path = b""
    entry = Entry(
        path,
        kind,
        draw(st.integers(0, 0o7777)),
        draw(st.integers(0, 2**32 - 2)),
        draw(st.integers(0, 2**32 - 2)),
        len(content),
        draw(st.integers(-(2**33), 2**33)) * 10**9,
        link,
        draw(DEVICE) if is_device else 0,
        draw(DEVICE) if is_device else 0,
        draw(XATTRS),
    )
    return entry, content


def written(items: list[Filled]) -> bytes:
    out = io.BytesIO()
    write_tar(items, out.write)
    return out.getvalue()


def read(data: bytes) -> list[Filled]:
    return [(entry, reader.read()) for entry, reader in read_tar(io.BytesIO(data))]


class Pieces:
    """A stream that gives at most `step` bytes at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self._inner = io.BytesIO(data)
        self._step = step

    def read(self, size: int = -1) -> bytes:
        return self._inner.read(min(size, self._step) if size >= 0 else self._step)


@given(st.lists(filled(), max_size=5))
def test_reading_gives_what_was_written(items: list[Filled]) -> None:
    assert read(written(items)) == items


@given(st.lists(filled(), max_size=4), st.integers(1, 700))
def test_writing_what_was_read_gives_the_same_bytes(items: list[Filled], step: int) -> None:
    data = written(items)
    out = io.BytesIO()
    write_tar(read_tar(Pieces(data, step)), out.write)  # type: ignore[arg-type]  # only read is used
    assert out.getvalue() == data


@given(st.lists(filled(), max_size=4), st.integers(-(10**9), 10**9))
def test_clamping_is_lowering_every_mtime(items: list[Filled], limit: int) -> None:
    out = io.BytesIO()
    write_tar(items, out.write, clamp_mtime=limit)
    lowered = [(replace(e, mtime_ns=min(e.mtime_ns, limit * 10**9)), c) for e, c in items]
    assert out.getvalue() == written(lowered)


@settings(max_examples=400)
@given(
    st.lists(filled(), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=12)), max_size=4),
    st.integers(0, 1 << 16),
    st.booleans(),
)
def test_damaged_archives_give_entries_or_a_lamina_error(
    items: list[Filled], edits: list[tuple[int, bytes]], cut: int, repair: bool
) -> None:
    data = bytearray(written(items))
    for at, patch in edits:
        start = at % len(data)
        data[start : start + len(patch)] = patch
    if cut % 3 == 0:
        del data[cut % len(data) :]
    if repair:
        repair_checksums(data)
    try:
        for entry, reader in read_tar(io.BytesIO(bytes(data))):
            reader.read(5000)
            assert not entry.path.startswith(b"/")
            assert not {b"..", b".", b""} & set(entry.path.split(b"/")[1:])
            assert b"\0" not in entry.path + entry.linkname
    except LaminaError as error:
        assert error.kind.value == "invalid"  # noqa: PT017  # success is fine too


def repair_checksums(data: bytearray) -> None:
    """Make every block a plausible header, so that damage gets past the first check."""
    for at in range(0, len(data) - 511, 512):
        if any(data[at : at + 512]):
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])


@given(st.binary(max_size=2000))
def test_any_bytes_give_entries_or_a_lamina_error(data: bytes) -> None:
    try:
        read(data)
    except LaminaError as error:
        assert error.kind.value == "invalid"  # noqa: PT017  # success is fine too


@given(st.binary(max_size=3000), st.lists(st.integers(1, 1000), max_size=20))
def test_gzip_bytes_do_not_depend_on_the_pieces(data: bytes, cuts: list[int]) -> None:
    whole, pieces = bytearray(), bytearray()
    for out, steps in ((whole, []), (pieces, cuts)):
        target = compressor("gzip", out.extend)
        at = 0
        for step in steps:
            target.write(data[at : at + step])
            at += step
        target.write(data[at:])
        target.close()
    assert whole == pieces
    assert gzip.decompress(whole) == data


@given(
    st.binary(max_size=500),
    st.sampled_from(["gzip", "zstd"]),
    st.integers(0, 1 << 16),
    st.binary(max_size=4),
)
def test_damaged_compressed_data_gives_bytes_or_a_lamina_error(
    data: bytes, name: str, at: int, patch: bytes
) -> None:
    out = bytearray()
    target = compressor(name, out.extend)
    target.write(data)
    target.close()
    start = at % len(out)
    out[start : start + len(patch)] = patch
    try:
        decompressed(io.BytesIO(bytes(out)), max_size=1 << 20).read()
    except LaminaError as error:
        assert error.kind.value in {"integrity", "exhausted"}  # noqa: PT017  # success is fine too


@given(st.lists(PATH, max_size=8))
def test_sorted_layers_list_a_directory_before_what_it_holds(paths: list[bytes]) -> None:
    ordered = sorted({*paths, *(p.rpartition(b"/")[0] for p in paths)} - {b""}, key=sort_key)
    position = {path: index for index, path in enumerate(ordered)}
    for path in ordered:
        parent = path.rpartition(b"/")[0]
        assert position.get(parent, -1) < position[path]
