# SPDX-License-Identifier: Apache-2.0
"""Layers as snapshots and blobs: each is made from the other, and every byte is checked."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lamina.errors import Cancelled, Kind, LaminaError
from lamina.events import Event, Progress, silent
from lamina.image.unpack import ensure_blob, ensure_snapshot
from lamina.layer.create import create_layer
from lamina.layer.walk import overlay_items
from lamina.spec import mediatype
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import DiffID, Digest
from lamina.spec.identity import chain_id, chain_ids
from lamina.store import LocalStore, open_store
from lamina.system.mounts import mounted, opened_layers
from lamina.system.overlay import LayerImage
from lamina.system.process import identify
from lamina.tasks import CancelToken, Work

pytestmark = pytest.mark.root


@pytest.fixture(params=["directories", "erofs"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LocalStore]:
    form: str = request.param
    opened = open_store(str(tmp_path / "store"), layers=lambda: form)
    yield opened
    opened.close()


def a_tar(files: dict[str, bytes]) -> bytes:
    """A layer as another tool makes it: with a `./` entry and in its own order."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        root = tarfile.TarInfo("./")
        root.type, root.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(root)
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size, member.mtime = len(content), 1_600_000_000
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


BOTTOM = a_tar({"one": b"1", "two": b"2" * 100_000})
TOP = a_tar({".wh.one": b"", "three": b"3"})
STACK = (DiffID(Digest.of(BOTTOM)), DiffID(Digest.of(TOP)))


def put(store: LocalStore, tar: bytes, *, media_type: str = mediatype.OCI_LAYER_GZIP) -> Descriptor:
    """Store the layer as a blob, as a pull does."""
    raw = gzip.compress(tar, mtime=0) if media_type.endswith("gzip") else tar
    blob = Descriptor(media_type, store.content.add(raw), len(raw))
    store.metadata.put_layer(DiffID(Digest.of(tar)), 0, blob)
    return blob


def damage(store: LocalStore, blob: Descriptor, content: bytes) -> None:
    path = store.content.path(blob.digest)
    os.chmod(path, 0o600)
    Path(path).write_bytes(content)


def unpack(store: LocalStore, stack: Sequence[DiffID] = STACK) -> None:
    ensure_snapshot(store, stack, work=Work(emit=silent, cancel=CancelToken(), clock=time.time))


def assert_nothing_half_written(store: LocalStore) -> None:
    rows = [found.name for found in store.snapshots.walk() if not found.committed]
    assert rows == []
    assert len(os.listdir(store.snapshots.directory)) == len(list(store.snapshots.walk()))
    assert os.listdir(os.path.join(store.root, "ingest")) == []


def test_stack_is_unpacked_and_whiteouts_hide(store: LocalStore, tmp_path: Path) -> None:
    put(store, BOTTOM)
    put(store, TOP)
    chain = ensure_snapshot(
        store, STACK, work=Work(emit=silent, cancel=CancelToken(), clock=time.time)
    )
    assert chain == chain_id(STACK)
    (tmp_path / "target").mkdir()
    with mounted(store.snapshots.view(chain), str(tmp_path / "target")):
        assert sorted(os.listdir(tmp_path / "target")) == ["three", "two"]
    assert_nothing_half_written(store)
    layer = store.metadata.get_layer(STACK[0])
    assert layer is not None
    assert layer.size == len(BOTTOM)


def test_layers_that_cannot_be_wrapped_are_unpacked_beside_those_that_can(tmp_path: Path) -> None:
    """An access control list changes the mode when it is set: only the kernel knows to what."""
    acl = bytes.fromhex("0200000001000700ffffffff04000500ffffffff20000500ffffffff")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        text = acl.decode("utf-8", "surrogateescape")
        member = tarfile.TarInfo("listed")
        member.pax_headers = {"SCHILY.xattr.system.posix_acl_access": text}
        archive.addfile(member)
    stack = (DiffID(Digest.of(BOTTOM)), DiffID(Digest.of(stream.getvalue())))
    store = open_store(str(tmp_path / "store"), layers=lambda: "erofs")
    put(store, BOTTOM)
    put(store, stream.getvalue())
    chain = ensure_snapshot(
        store, stack, work=Work(emit=silent, cancel=CancelToken(), clock=time.time)
    )
    top, bottom = store.snapshots.view(chain).lowers
    assert isinstance(bottom, LayerImage)
    assert isinstance(top, str)
    (tmp_path / "target").mkdir()
    with mounted(store.snapshots.view(chain), str(tmp_path / "target")):
        assert sorted(os.listdir(tmp_path / "target")) == ["listed", "one", "two"]
    assert_nothing_half_written(store)
    store.close()


def test_no_layers_need_no_snapshot(store: LocalStore) -> None:
    assert (
        ensure_snapshot(store, (), work=Work(emit=silent, cancel=CancelToken(), clock=time.time))
        is None
    )


def test_unpacked_layers_are_not_read_again(store: LocalStore) -> None:
    blobs = [put(store, BOTTOM), put(store, TOP)]
    unpack(store)
    for blob in blobs:
        store.content.delete(blob.digest)
    unpack(store)


def test_only_missing_layers_are_unpacked(store: LocalStore) -> None:
    bottom = put(store, BOTTOM)
    unpack(store, STACK[:1])
    store.content.delete(bottom.digest)
    put(store, TOP)
    unpack(store)


def test_missing_layer_is_named(store: LocalStore) -> None:
    put(store, BOTTOM)
    with pytest.raises(LaminaError) as caught:
        unpack(store)
    assert caught.value.kind is Kind.NOT_FOUND
    assert STACK[1].hex in str(caught.value)
    assert_nothing_half_written(store)


@pytest.mark.parametrize(
    "content",
    [gzip.compress(TOP), gzip.compress(BOTTOM)[:60], b"", b"\0" * 99],
    ids=["another", "cut", "empty", "zeros"],  # the same in every worker: gzip holds the time
)
def test_damaged_layer_is_an_integrity_error_and_leaves_nothing(
    store: LocalStore, content: bytes
) -> None:
    damage(store, put(store, BOTTOM), content)
    with pytest.raises(LaminaError) as caught:
        unpack(store)
    assert caught.value.kind in {Kind.INTEGRITY, Kind.INVALID}
    assert STACK[0].hex in str(caught.value)
    assert_nothing_half_written(store)


def test_another_blob_of_the_layer_is_used_if_one_is_damaged(store: LocalStore) -> None:
    damage(store, put(store, BOTTOM, media_type=mediatype.OCI_LAYER), TOP)
    put(store, BOTTOM)
    unpack(store, STACK[:1])
    assert store.snapshots.exists(chain_ids(STACK)[0])


def dead_process() -> str:
    """`PID-STARTTIME` of a process that has ended."""
    with subprocess.Popen(["sleep", "60"]) as process:
        identity = identify(process.pid)
        assert identity is not None
        process.kill()
    return f"{identity.pid}-{identity.start_ticks}"


def test_leftover_of_a_killed_unpacking_is_replaced(store: LocalStore) -> None:
    put(store, BOTTOM)
    chain = chain_ids(STACK)[0]
    mount = store.snapshots.prepare(f"unpack:{chain}@{dead_process()}-1", None)
    Path(mount.upper, "half").write_text("half")
    unpack(store, STACK[:1])
    with opened_layers([store.snapshots.layer(str(chain))]) as (directory,):
        assert sorted(os.listdir(directory)) == ["one", "two"]
    assert not os.path.exists(mount.upper)


def test_cancelled_unpacking_leaves_nothing_half_written(store: LocalStore) -> None:
    put(store, BOTTOM)
    cancel = CancelToken()

    def cancel_at_progress(event: Event) -> None:
        if isinstance(event, Progress):
            cancel.cancel()

    with pytest.raises(Cancelled):
        ensure_snapshot(
            store, STACK, work=Work(emit=cancel_at_progress, cancel=cancel, clock=time.time)
        )
    assert_nothing_half_written(store)


def test_many_threads_unpack_a_chain_once(store: LocalStore) -> None:
    put(store, BOTTOM)
    put(store, TOP)
    done: list[Progress] = []

    def emit(event: Event) -> None:
        if isinstance(event, Progress) and event.done:
            done.append(event)

    threads = [
        threading.Thread(
            target=lambda: ensure_snapshot(
                store, STACK, work=Work(emit=emit, cancel=CancelToken(), clock=time.time)
            )
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 2
    assert all(event.current == event.total for event in done)
    assert_nothing_half_written(store)


def test_blob_that_exists_is_taken(store: LocalStore) -> None:
    blob = put(store, BOTTOM)
    assert ensure_blob(store, STACK, 0, cancel=CancelToken()) == blob


@pytest.mark.parametrize("compression", ["uncompressed", "zstd", "gzip"])
def test_layer_is_compressed_anew_from_another_blob(store: LocalStore, compression: str) -> None:
    source = mediatype.OCI_LAYER if compression != "uncompressed" else mediatype.OCI_LAYER_GZIP
    put(store, BOTTOM, media_type=source)
    made = ensure_blob(store, STACK, 0, compression=compression, cancel=CancelToken())
    assert made.media_type == mediatype.OCI_LAYER_OF[compression]
    assert store.content.info(made.digest).size == made.size
    store.content.verify(made.digest)
    layer = store.metadata.get_layer(STACK[0])
    assert layer is not None
    assert made in layer.blobs
    assert layer.size == len(BOTTOM)
    for blob in layer.blobs:
        if blob != made:
            store.content.delete(blob.digest)
    unpack(store, STACK[:1])


def own_layer(store: LocalStore, *, clamp_mtime: int | None = None) -> DiffID:
    """A snapshot as a RUN step leaves it, and the diffID that it was given."""
    mount = store.snapshots.prepare("vertex", None)
    Path(mount.upper, "directory").mkdir()
    Path(mount.upper, "directory", "file").write_text("made")
    made = create_layer(overlay_items(mount.upper), None, clamp_mtime=clamp_mtime)
    chain = chain_id([made.diff_id])
    assert chain is not None
    store.snapshots.commit(chain, "vertex")
    return made.diff_id


@pytest.mark.parametrize("clamp_mtime", [None, 1_000_000_000])
def test_layer_is_made_again_from_its_snapshot(store: LocalStore, clamp_mtime: int | None) -> None:
    diff_id = own_layer(store, clamp_mtime=clamp_mtime)
    made = ensure_blob(store, [diff_id], 0, cancel=CancelToken(), clamp_mtime=clamp_mtime)
    assert Digest.of(gzip.decompress(store.content.read(made.digest, limit=1 << 20))) == diff_id
    assert ensure_blob(store, [diff_id], 0, cancel=CancelToken()) == made


def test_layer_that_cannot_be_made_again_with_the_same_bytes_is_missing(store: LocalStore) -> None:
    blob = put(store, BOTTOM)
    unpack(store, STACK[:1])
    store.content.delete(blob.digest)
    with pytest.raises(LaminaError) as caught:
        ensure_blob(store, STACK, 0, cancel=CancelToken())
    assert caught.value.kind is Kind.NOT_FOUND
    assert STACK[0].hex in str(caught.value)
    assert_nothing_half_written(store)


def test_layer_without_blob_and_snapshot_is_missing(store: LocalStore) -> None:
    with pytest.raises(LaminaError) as caught:
        ensure_blob(store, STACK, 1, cancel=CancelToken())
    assert caught.value.kind is Kind.NOT_FOUND


def test_damaged_blob_is_not_compressed_anew(store: LocalStore) -> None:
    damage(store, put(store, BOTTOM, media_type=mediatype.OCI_LAYER), TOP)
    with pytest.raises(LaminaError) as caught:
        ensure_blob(store, STACK, 0, cancel=CancelToken())
    assert caught.value.kind is Kind.INTEGRITY
    assert_nothing_half_written(store)


def test_unknown_compression_is_refused_by_name(store: LocalStore) -> None:
    put(store, BOTTOM)
    with pytest.raises(LaminaError, match="lzma") as caught:
        ensure_blob(store, STACK, 0, compression="lzma", cancel=CancelToken())
    assert caught.value.kind is Kind.UNSUPPORTED
    assert_nothing_half_written(store)


def test_ingest_of_a_killed_compressor_is_started_again(store: LocalStore) -> None:
    put(store, BOTTOM, media_type=mediatype.OCI_LAYER)
    with store.content.ingest(f"layer {STACK[0]} gzip") as dead:
        dead.write(b"\x1f\x8b half")
    made = ensure_blob(store, STACK, 0, cancel=CancelToken())
    assert gzip.decompress(store.content.read(made.digest, limit=1 << 20)) == BOTTOM
