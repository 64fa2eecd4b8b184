# SPDX-License-Identifier: Apache-2.0
"""Layers become snapshots while they arrive, and none of unverified bytes is ever to be seen."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import pytest

from lamina.app.pulling import PullOptions, pull_image
from lamina.errors import Cancelled, Kind, LaminaError
from lamina.events import Event, Notice, silent
from lamina.image.view import Image
from lamina.layer.create import create_layer
from lamina.layer.entry import Entry, EntryType
from lamina.layer.erofs import NotWrappable
from lamina.registry import arrivals
from lamina.registry.arrivals import Arrivals, ArrivingEnd, ArrivingImage
from lamina.registry.client import Registries
from lamina.registry.graph import copy_graph
from lamina.registry.storeend import StoreEnd
from lamina.spec.config import ImageConfig
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import Digest
from lamina.spec.identity import chain_ids
from lamina.spec.manifest import Manifest
from lamina.spec.mediatype import OCI_CONFIG, OCI_LAYER_GZIP
from lamina.store import LocalStore, open_store
from lamina.tasks import CancelToken, TaskGroup, Work
from lamina.testing.command import Lamina
from lamina.testing.fakeregistry import FakeRegistry
from lamina.testing.images import AMD64
from lamina.testing.registries import put
from lamina.testing.waiting import wait_until

pytestmark = pytest.mark.root
DEADLINE = 60  # seconds: none of these waits is for a time to pass

Files = dict[str, bytes]


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


class Made:
    """An image of one layer for each of `layers`, with its blobs."""

    def __init__(self, layers: Sequence[Files]) -> None:
        self.blobs: dict[Digest, bytes] = {}
        diff_ids, descriptors = [], []
        for files in layers:
            packed = io.BytesIO()
            items = [
                (Entry(name.encode(), EntryType.FILE, 0o644, size=len(data)), data)
                for name, data in sorted(files.items())
            ]
            diff_ids.append(create_layer(items, packed.write, compression="gzip").diff_id)
            descriptors.append(self._add(OCI_LAYER_GZIP, packed.getvalue()))
        self.diff_ids = tuple(diff_ids)
        self.chains = chain_ids(self.diff_ids)
        config = ImageConfig("amd64", "linux", diff_ids=self.diff_ids).serialise()
        self.manifest = Manifest.make(self._add(OCI_CONFIG, config), descriptors)

    def _add(self, media_type: str, data: bytes) -> Descriptor:
        descriptor = Descriptor.of(media_type, data)
        self.blobs[descriptor.digest] = data
        return descriptor

    def serve(self, fake: FakeRegistry, name: str) -> None:
        for data in self.blobs.values():
            fake.add_blob(data)
        put(fake, name, self.manifest)


class Gated:
    """A Source whose streams call `gate(digest, offset)` before each piece."""

    def __init__(self, made: Made, gate: Callable[[Digest, int], None]) -> None:
        self.made = made
        self.gate = gate

    def document(self, descriptor: Descriptor) -> bytes:
        assert descriptor.digest == self.made.manifest.descriptor().digest
        return self.made.manifest.raw

    def exists(self, descriptor: Descriptor) -> bool:
        return descriptor.digest in self.made.blobs

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> IO[bytes]:
        source = self

        class Stream(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                source.gate(descriptor.digest, self.tell())
                return super().read(min(size or 0, 64 * 1024))

        stream = Stream(self.made.blobs[descriptor.digest])
        stream.seek(offset)
        return stream


def fetch(store: LocalStore, source: Gated) -> None:
    manifest = source.made.manifest
    with store.lease("test"), TaskGroup() as group:
        arrivals = Arrivals(store, group.token)
        end = ArrivingEnd(store, arrivals, {layer.digest for layer in manifest.layers})
        image = ArrivingImage(
            end,
            arrivals,
            manifest,
            store=store,
            work=Work(emit=silent, cancel=group.token, clock=time.time),
        )
        group.start(image.unpack)
        group.start(
            lambda: copy_graph(
                source,
                end,
                manifest.descriptor(),
                work=Work(emit=silent, cancel=group.token, clock=time.time),
            )
        )
    arrivals.close()


def pull(
    store: LocalStore,
    registries: Registries,
    name: str,
    emit: Callable[[Event], None] = silent,
) -> None:
    pull_image(
        store,
        registries,
        name,
        PullOptions(host=AMD64, unpack=True),
        work=Work(emit=emit, cancel=CancelToken(), clock=time.time),
    )


def working(store: LocalStore) -> list[str]:
    return [one.name for one in store.snapshots.walk() if not one.committed]


def test_a_layer_is_ready_while_the_next_arrives(store: LocalStore) -> None:
    made = Made([{"below": b"1"}, {"above": noise(200_000, 1)}])
    top = made.manifest.layers[1].digest

    def gate(digest: Digest, offset: int) -> None:
        if digest == top:
            wait_until(lambda: store.snapshots.exists(made.chains[0]))

    fetch(store, Gated(made, gate))
    assert store.snapshots.exists(made.chains[1])
    directory = Path(store.snapshots.layer_dir(str(made.chains[1])))
    assert (directory / "above").read_bytes() == noise(200_000, 1)


def test_files_are_there_before_the_layer_is_whole_but_no_snapshot(store: LocalStore) -> None:
    made = Made([{"a-first": b"first", "b-rest": noise(8 << 20, 2)}])
    layer = made.manifest.layers[0]
    snapshots = Path(store.root) / "snapshots"
    seen: list[bool] = []

    def gate(digest: Digest, offset: int) -> None:
        if digest == layer.digest and offset > layer.size * 3 // 4 and not seen:
            wait_until(lambda: any(snapshots.glob("*/fs/a-first")))
            seen.append(store.snapshots.exists(made.chains[0]))

    fetch(store, Gated(made, gate))
    assert seen == [False]
    assert store.snapshots.exists(made.chains[0])


def test_a_wrong_end_leaves_no_snapshot(
    fake: FakeRegistry, store: LocalStore, registries: Registries
) -> None:
    made = Made([{"below": b"1"}, {"above": noise(300_000, 3)}])
    made.serve(fake, "wrong")
    top = made.manifest.layers[1]
    blobs = fake.blobs[str(top.digest)]
    fake.blobs[str(top.digest)] = blobs[:-1] + bytes([blobs[-1] ^ 1])
    with pytest.raises(LaminaError, match=top.digest.short()) as caught:
        pull(store, registries, f"{fake.host}/wrong:1")
    assert caught.value.kind is Kind.INTEGRITY
    assert not store.snapshots.exists(made.chains[1])
    assert working(store) == []
    assert store.metadata.list_names() == []
    fake.blobs[str(top.digest)] = blobs
    pull(store, registries, f"{fake.host}/wrong:1")
    assert store.snapshots.exists(made.chains[1])


def test_a_config_that_lies_gets_no_snapshot(
    fake: FakeRegistry, store: LocalStore, registries: Registries
) -> None:
    honest, victim = Made([{"x": b"theirs"}]), Made([{"x": b"mine"}])
    honest.serve(fake, "liar")
    victim.serve(fake, "victim")
    put(fake, "liar", Manifest.make(victim.manifest.config, honest.manifest.layers))
    with pytest.raises(LaminaError, match=r"is not the sha256.* of the config") as caught:
        pull(store, registries, f"{fake.host}/liar:1")
    assert caught.value.kind is Kind.INTEGRITY
    assert [one.name for one in store.snapshots.walk()] == []
    assert store.metadata.list_names() == []


def test_a_damaged_half_of_an_earlier_pull_is_fetched_again(
    fake: FakeRegistry, store: LocalStore, registries: Registries
) -> None:
    made = Made([{"file": noise(3 << 20, 4)}])
    made.serve(fake, "half")
    layer = made.manifest.layers[0]
    with store.content.ingest(f"blob {layer.digest}", expected=layer) as ingest:
        ingest.write(bytes(1 << 20))  # not even gzip
    pull(store, registries, f"{fake.host}/half:1")
    assert store.snapshots.exists(made.chains[0])
    store.content.verify(layer.digest)
    assert working(store) == []


def test_what_is_here_in_part_is_completed(
    fake: FakeRegistry, store: LocalStore, registries: Registries
) -> None:
    """One layer as a blob, one as a snapshot whose blob is gone, one not at all."""
    made = Made([{"a": b"a"}, {"b": b"b"}, {"c": b"c"}])
    made.serve(fake, "part")
    pull(store, registries, f"{fake.host}/part:1")
    for chain in reversed(made.chains[1:]):
        store.snapshots.remove(str(chain))
    store.content.delete(made.manifest.layers[0].digest)
    store.content.delete(made.manifest.layers[2].digest)
    store.metadata.delete_names([f"{fake.host}/part:1"])
    fake.seen.clear()
    pull(store, registries, f"{fake.host}/part:1")
    assert all(store.snapshots.exists(chain) for chain in made.chains)
    assert fake.requests("GET", str(made.manifest.layers[1].digest)) == []
    for layer, diff_id in zip(made.manifest.layers, made.diff_ids, strict=True):
        known = store.metadata.get_layer(diff_id)
        assert known is not None
        assert [blob.digest for blob in known.blobs] == [layer.digest]


def test_who_may_not_unpack_keeps_the_layers_packed(
    fake: FakeRegistry,
    store: LocalStore,
    registries: Registries,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Made([{"a": b"a"}])
    made.serve(fake, "denied")

    def refuse(*args: object, **rest: object) -> None:
        raise LaminaError("device nodes cannot be made", kind=Kind.DENIED)

    monkeypatch.setattr(arrivals, "unpack_blob", refuse)
    events: list[Event] = []
    pull(store, registries, f"{fake.host}/denied:1", events.append)
    assert [e.message for e in events if isinstance(e, Notice)] == [
        "the layers stay packed: device nodes cannot be made"
    ]
    target = store.metadata.get_name(f"{fake.host}/denied:1")
    assert target is not None
    assert Image.open(store, target.target).config().diff_ids == made.diff_ids


def test_cancelling_wakes_who_waits_for_bytes(store: LocalStore) -> None:
    made = Made([{"a": noise(100_000, 5)}])
    token = CancelToken()
    arrivals = Arrivals(store, token)
    reached = threading.Event()

    def wait() -> None:
        reached.set()
        arrivals.open(made.manifest.layers[0])

    group = TaskGroup()
    with pytest.raises(Cancelled), group:
        group.start(wait)
        assert reached.wait(DEADLINE)
        token.cancel()
    arrivals.close()


def test_a_pull_killed_while_it_unpacks_leaves_no_half(
    fake: FakeRegistry, registries: Registries, command: Lamina, tmp_path: Path
) -> None:
    made = Made([{"below": b"1"}, {"a-first": b"first", "b-rest": noise(24 << 20, 6)}])
    made.serve(fake, "killed")
    layer = made.manifest.layers[1]
    fake.cuts = 1000
    fake.cut_after = 256 * 1024  # with a pause after each cut it takes most of a minute
    command.env |= {"LAMINA_ROOT": str(tmp_path / "pulled"), "LAMINA_LAYERS": "directories"}
    snapshots = tmp_path / "pulled/snapshots"
    argv = command.argv("pull", "-q", f"{fake.host}/killed:1")
    with subprocess.Popen(argv, env=command.env, cwd=command.cwd) as process:
        try:
            wait_until(lambda: any(snapshots.glob("*/fs/a-first")))
        finally:
            process.send_signal(signal.SIGKILL)
    fake.cuts = 0
    opened = open_store(str(tmp_path / "pulled"))
    assert opened.snapshots.exists(made.chains[0])
    assert not opened.snapshots.exists(made.chains[1])
    assert not opened.content.exists(layer.digest)
    fake.seen.clear()
    pull(opened, registries, f"{fake.host}/killed:1")
    assert fake.requests("GET", str(layer.digest))[0].header("Range")
    assert opened.snapshots.exists(made.chains[1])
    assert working(opened) == []
    assert len(os.listdir(snapshots)) == 2
    opened.close()


def test_memory_is_flat_in_the_size_of_the_layers(
    fake: FakeRegistry, command: Lamina, tmp_path: Path
) -> None:
    """192 MB in two layers; the peak of the whole command, interpreter included."""
    block = noise(1 << 20, 7)
    made = Made([{f"{n}": block * 96} for n in range(2)])
    made.serve(fake, "large")
    script = (
        "import sys\n"
        f"sys.argv = ['lamina', 'pull', '-q', '{fake.host}/large:1']\n"
        "from lamina.cli.main import console\n"
        "status = console()\n"
        "peak = int(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])\n"
        "print('peak', status, peak // 1024)\n"
    )
    command.env["LAMINA_ROOT"] = str(tmp_path / "pulled")
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=command.env,
        capture_output=True,
        text=True,
        check=True,
    )
    _, status, peak = done.stdout.splitlines()[-1].split()
    assert status == "0", done.stderr
    assert int(peak) < 150


def test_a_pull_may_leave_the_layers_packed(
    fake: FakeRegistry, command: Lamina, tmp_path: Path
) -> None:
    made = Made([{"a": b"a"}])
    made.serve(fake, "packed")
    command.env["LAMINA_ROOT"] = str(tmp_path / "pulled")
    command("pull", "-q", "--no-unpack", f"{fake.host}/packed:1")
    opened = open_store(str(tmp_path / "pulled"))
    assert not opened.snapshots.exists(made.chains[0])
    assert StoreEnd(opened).exists(made.manifest.layers[0])
    opened.close()
    command("pull", "-q", f"{fake.host}/packed:1")
    opened = open_store(str(tmp_path / "pulled"))
    assert opened.snapshots.exists(made.chains[0])
    opened.close()


def test_every_file_is_closed_and_a_layer_may_come_twice(store: LocalStore) -> None:
    same = {"same": noise(300_000, 8)}
    made = Made([same, {"other": noise(2 << 20, 9)}, same, *({f"n{n}": b"x"} for n in range(20))])
    before = set(os.listdir("/proc/self/fd"))

    fetch(store, Gated(made, lambda digest, offset: None))
    assert all(store.snapshots.exists(chain) for chain in made.chains)
    ours = [
        target
        for fd in set(os.listdir("/proc/self/fd")) - before
        if os.path.exists(f"/proc/self/fd/{fd}")
        and ("/ingest/" in (target := os.readlink(f"/proc/self/fd/{fd}")) or "/blobs/" in target)
    ]
    assert ours == []


def test_a_layer_that_cannot_be_an_image_is_read_again_while_it_arrives(tmp_path: Path) -> None:
    """Whether layers are images here or not: the first half is read twice before the rest comes."""
    made = Made([{"below": b"1"}, {"a": b"first", "b": noise(8 << 20, 10)}])
    layer = made.manifest.layers[1]
    opened = open_store(str(tmp_path / "auto"), layers=lambda: "auto")
    arrivals = Arrivals(opened, CancelToken())
    data = made.blobs[layer.digest]
    with opened.lease("test"):
        with opened.content.ingest("layer", expected=layer) as ingest:
            arrivals.begin(layer.digest, ingest.reader())
            ingest.write(data[: 1 << 20])
            arrivals.grow(layer.digest, 1 << 20)
            with arrivals.open(layer) as first:
                assert first.read(1 << 20) == data[: 1 << 20]
            again = arrivals.open(layer)
            assert again.read(1 << 20) == data[: 1 << 20]
            ingest.write(data[1 << 20 :])
            arrivals.grow(layer.digest, len(data))
            ingest.commit()
        arrivals.complete(layer.digest)
        arrivals.close()
        with again:
            rest = b""
            while piece := again.read():
                rest += piece
        assert rest == data[1 << 20 :]
        fetch(opened, Gated(made, lambda digest, offset: None))
        assert opened.snapshots.exists(made.chains[1])
    opened.close()


def test_a_layer_that_refuses_to_be_an_image_arrives_as_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made([{"a": b"first", "b": noise(8 << 20, 11)}])
    asked = []

    def refuse(tar: IO[bytes], path: str, **named: object) -> None:
        Path(path).touch()
        asked.append(tar.read(1 << 20))
        raise NotWrappable("something rare")

    opened = open_store(str(tmp_path / "images"), layers=lambda: "erofs")
    opened.snapshots.prepare("probe", None)
    assert opened.snapshots.image_for("probe"), "asked once, before nothing can be wrapped"
    opened.snapshots.remove("probe")
    monkeypatch.setattr("lamina.layer.wrap.wrap_layer", refuse)
    fetch(opened, Gated(made, lambda digest, offset: None))
    assert asked
    directory = Path(opened.snapshots.layer_dir(str(made.chains[0])))
    assert (directory / "a").read_bytes() == b"first"
    opened.close()
