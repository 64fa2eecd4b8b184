# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gc
import hashlib
import io
import os
import threading
from pathlib import Path

import pytest

from lamina.errors import Cancelled, Kind, LaminaError
from lamina.layer.compress import COMPRESSIONS, Compressor, decompressed
from lamina.layer.create import DEPTH, create_layer, recompress_layer
from lamina.layer.entry import Entry, EntryType
from lamina.layer.rewrite import clamped
from lamina.layer.tarread import read_tar
from lamina.layer.tarwrite import new_buffer, write_tar
from lamina.spec.digest import Digest
from lamina.tasks import CancelToken
from lamina.testing.waiting import let_pass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.layer.entry import Item

BIG = os.urandom(1 << 18) + bytes(1 << 20)


def items(count: int, content: bytes = BIG) -> list[Item]:
    return [
        (Entry(b"%04d" % n, EntryType.FILE, 0o644, size=len(content), mtime_ns=n * 10**9), content)
        for n in range(count)
    ]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("count", [0, 1, 12])
def test_digests_and_sizes_are_those_of_the_bytes(compression: str, count: int) -> None:
    out = bytearray()
    made = create_layer(items(count), out.extend, compression=compression)
    tar = decompressed(io.BytesIO(bytes(out))).read()
    assert str(made.diff_id) == "sha256:" + hashlib.sha256(tar).hexdigest()
    assert str(made.digest) == "sha256:" + hashlib.sha256(out).hexdigest()
    assert (made.size, made.compressed_size) == (len(tar), len(out))
    expected = io.BytesIO()
    write_tar(items(count), expected.write)
    assert tar == expected.getvalue()


def test_bytes_do_not_depend_on_timing() -> None:
    fast, slow = bytearray(), bytearray()

    def crawl(data: bytes) -> None:
        let_pass(0.002)
        slow.extend(data)

    create_layer(items(12), fast.extend)
    create_layer(items(12), crawl)
    assert fast == slow


def test_without_a_writer_only_the_diff_id_is_computed() -> None:
    out = bytearray()
    made = create_layer(items(3), out.extend)
    bare = create_layer(items(3), None)
    assert (bare.diff_id, bare.size) == (made.diff_id, made.size)
    assert (bare.digest, bare.compressed_size) == (None, 0)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_digest_of_what_hashes_itself_is_taken(compression: str) -> None:
    out, hasher = bytearray(), hashlib.sha256()

    def write(data: bytes) -> None:
        out.extend(data)
        hasher.update(data)

    made = create_layer(items(12), out.extend, compression=compression)
    out.clear()
    told = create_layer(
        items(12),
        write,
        compression=compression,
        digest=lambda: Digest("sha256", hasher.hexdigest()),
    )
    assert told == made


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("count", [0, 12])
def test_a_tar_is_compressed_as_if_it_were_made_now(compression: str, count: int) -> None:
    tar, out, again = io.BytesIO(), bytearray(), bytearray()
    write_tar(items(count), tar.write)
    tar.seek(0)
    made = create_layer(items(count), out.extend, compression=compression)
    assert recompress_layer(tar, again.extend, compression=compression) == made
    assert again == out


def test_buffers_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def count() -> bytearray:
        made.append(1)
        return new_buffer()

    monkeypatch.setattr("lamina.layer.create.new_buffer", count)
    create_layer(items(40), bytearray().extend)
    assert len(made) <= DEPTH + 2  # queued, one being compressed, one being filled


@pytest.mark.parametrize("count", [1, 12])
def test_encoder_goes_without_the_garbage_collector(count: int) -> None:
    gc.collect()
    gc.disable()
    try:
        create_layer(items(count), bytearray().extend)
        left = [found for found in gc.get_objects() if isinstance(found, Compressor)]
    finally:
        gc.enable()
    assert not left


def test_small_layer_needs_no_thread() -> None:
    seen: set[int] = set()
    create_layer(items(5, b"x"), lambda _: seen.add(threading.get_ident()))
    assert seen == {threading.get_ident()}


@pytest.mark.parametrize("count", [1, 30])
def test_error_of_the_writer_rises_and_no_thread_is_left(count: int) -> None:
    def fail(_data: bytes) -> None:
        raise LaminaError("disk full", kind=Kind.EXHAUSTED)

    with pytest.raises(LaminaError, match="disk full"):
        create_layer(items(count), fail)
    assert not [t for t in threading.enumerate() if t.name.endswith("-layer")]


def test_error_of_the_items_rises_and_no_thread_is_left() -> None:
    broken = [*items(20), (Entry(b"z", EntryType.FILE, 0o644, size=5), b"")]
    with pytest.raises(LaminaError, match="changed while it was read"):
        create_layer(broken, bytearray().extend)
    assert not [t for t in threading.enumerate() if t.name.endswith("-layer")]


def test_cancelling_stops_it() -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        create_layer(items(12), bytearray().extend, cancel=token)


def test_clamped_layer_is_the_same_but_for_late_times() -> None:
    tar = io.BytesIO()
    write_tar(items(6, b"abc"), tar.write)
    tar.seek(0)
    out = bytearray()
    create_layer(clamped(tar, clamp_mtime=3), out.extend, compression="uncompressed")
    found = [(e.path, e.mtime_ns, r.read()) for e, r in read_tar(io.BytesIO(bytes(out)))]
    assert found == [(b"%04d" % n, min(n, 3) * 10**9, b"abc") for n in range(6)]


def test_clamping_streams_files_of_any_size(tmp_path: Path) -> None:
    tar = tmp_path / "layer.tar"
    with tar.open("wb") as file:
        write_tar(items(2, bytes(5 << 20)), file.write)
    with tar.open("rb") as file:
        made = create_layer(clamped(file, clamp_mtime=100), None)
    assert str(made.diff_id) == "sha256:" + hashlib.sha256(tar.read_bytes()).hexdigest()
