# SPDX-License-Identifier: Apache-2.0
"""Pulls and pushes whose process is killed in the middle go on where they were."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.image.names import set_names
from lamina.image.view import Image
from lamina.layer.create import create_layer
from lamina.layer.entry import Entry, EntryType
from lamina.registry import upload
from lamina.registry.client import Registries
from lamina.registry.journal import StoreJournal
from lamina.spec.config import ImageConfig
from lamina.spec.descriptor import Descriptor
from lamina.spec.manifest import Manifest
from lamina.spec.mediatype import OCI_CONFIG, OCI_LAYER
from lamina.spec.reference import Reference
from lamina.store import LocalStore, open_store
from lamina.tasks import CancelToken
from lamina.testing.command import Lamina
from lamina.testing.fakeregistry import FakeRegistry
from lamina.testing.registries import Distribution, pull, push
from lamina.testing.waiting import wait_until

SIZE = 80 * 1024 * 1024


def big_image(store: LocalStore, name: str) -> Manifest:
    """An image with one uncompressed layer of `SIZE` random bytes."""
    data = os.urandom(1 << 20) * (SIZE >> 20)
    entry = Entry(b"big", EntryType.FILE, 0o644, size=len(data))
    with store.lease("test"):
        with store.content.ingest("big") as ingest:
            made = create_layer(
                [(entry, data)], ingest.write, compression="uncompressed", cancel=CancelToken()
            )
            length = ingest.offset
            digest = ingest.commit()
        layer = Descriptor(OCI_LAYER, digest, length)
        store.metadata.put_layer(made.diff_id, made.size, layer)
        config = ImageConfig("amd64", "linux", diff_ids=(made.diff_id,)).serialise()
        store.content.add(config)
        manifest = Manifest.make(Descriptor.of(OCI_CONFIG, config), [layer])
        store.content.add(manifest.raw)
        set_names(store, [name], manifest.descriptor())
    return manifest


@contextlib.contextmanager
def started(lamina: Lamina, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        lamina.argv(*words), env=lamina.env, cwd=lamina.cwd, stdout=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def test_a_killed_pull_goes_on(
    fake: FakeRegistry, store: LocalStore, registries: Registries, command: Lamina, tmp_path: Path
) -> None:
    manifest = big_image(store, f"{fake.host}/big:1")
    push(store, registries, f"{fake.host}/big:1")
    layer = manifest.layers[0]
    fake.cut_after, fake.cuts = SIZE // 2, 1000  # it never gets through
    command.env["LAMINA_ROOT"] = str(tmp_path / "pulled")
    ingests = tmp_path / "pulled/ingest"
    with started(command, "pull", "-q", f"{fake.host}/big:1") as process:

        def arrived() -> bool:
            return sum(path.stat().st_size for path in ingests.glob("*")) >= SIZE // 4

        wait_until(arrived, "a quarter of the layer", process=process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    fake.cuts = 0
    fake.seen.clear()
    opened = open_store(str(tmp_path / "pulled"))
    assert opened.metadata.list_names() == []
    assert not opened.content.exists(layer.digest)
    pull(opened, registries, f"{fake.host}/big:1")
    ranges = [seen.header("Range") for seen in fake.requests("GET", str(layer.digest))]
    assert int(ranges[0].removeprefix("bytes=").removesuffix("-")) >= SIZE // 4
    assert opened.content.exists(layer.digest)
    opened.close()


@pytest.mark.parametrize("words", [("image", "prune", "-f"), ("system", "prune", "-f")])
def test_a_prune_right_after_a_failed_pull_frees_what_it_left(
    fake: FakeRegistry,
    store: LocalStore,
    registries: Registries,
    command: Lamina,
    tmp_path: Path,
    words: tuple[str, ...],
) -> None:
    big_image(store, f"{fake.host}/big:1")
    push(store, registries, f"{fake.host}/big:1")
    command.env["LAMINA_ROOT"] = str(tmp_path / "pulled")
    fake.hold_after = SIZE // 2
    ingests = tmp_path / "pulled/ingest"
    with started(command, "pull", "-q", f"{fake.host}/big:1") as process:
        wait_until(lambda: ingests.exists() and size_of(ingests) >= SIZE // 4)
        assert "reclaimed space: 0B" in command(*words).stdout  # of a pull that is at work
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert size_of(ingests) >= SIZE // 4
    for path in ingests.iterdir():  # as if it was a moment ago, however slow this machine is
        os.utime(path, (time.time() + 60,) * 2)
    pruned = command(*words).stdout
    assert "Total reclaimed space: 0B" not in pruned
    assert list(ingests.iterdir()) == []
    assert list((tmp_path / "pulled/blobs/sha256").iterdir()) == []
    assert list((tmp_path / "pulled/snapshots").iterdir()) == []


@pytest.mark.parametrize("sent", [-1, 1 << 20])
def test_an_interrupted_pull_does_not_wait_for_a_silent_registry(
    fake: FakeRegistry,
    store: LocalStore,
    registries: Registries,
    command: Lamina,
    tmp_path: Path,
    sent: int,
) -> None:
    big_image(store, f"{fake.host}/big:1")
    push(store, registries, f"{fake.host}/big:1")
    fake.seen.clear()
    command.env["LAMINA_ROOT"] = str(tmp_path / "pulled")
    fake.hold_after = sent
    with started(command, "pull", "-q", f"{fake.host}/big:1") as process:
        wait_until(
            lambda: len(fake.requests("GET", "/blobs/")) == 2, "layer and config are asked for"
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=50) == 130  # the client's own patience is 60 seconds
    assert len(fake.requests("GET", "/blobs/")) == 2  # and nothing is tried again


def test_a_killed_push_goes_on(
    fake: FakeRegistry, store: LocalStore, registries: Registries, command: Lamina
) -> None:
    manifest = big_image(store, f"{fake.host}/big:1")
    with started(command, "push", "-q", f"{fake.host}/big:1") as process:

        def watch(received: int) -> None:
            if received > SIZE * 3 // 5:
                process.send_signal(signal.SIGKILL)

        fake.on_patch = watch
        assert process.wait(timeout=60) == -signal.SIGKILL
    fake.on_patch = None
    wait_until(lambda: fake.connections == 0, "what the kernel holds of the dead process arrives")
    fake.seen.clear()
    assert not fake.manifests
    done = push(store, registries, f"{fake.host}/big:1")
    assert done.moved >= 1
    asked = fake.requests("GET", "/uploads/")
    assert asked, "the registry was not asked how far it is"
    first = fake.requests("PATCH")[0].header("Content-Range")
    assert int(first.partition("-")[0]) > SIZE // 2
    assert fake.blobs[str(manifest.layers[0].digest)]
    assert store.documents.list(StoreJournal.KIND) == []


@pytest.mark.tool("docker-registry")
def test_a_push_to_distribution_goes_on_at_the_last_chunk(
    docker_registry: Distribution, store: LocalStore, registries: Registries, command: Lamina
) -> None:
    """Distribution forgets an upload that was cut inside a chunk; between chunks it goes on."""
    name = f"{docker_registry.host}/big:1"
    manifest = big_image(store, name)
    script = (
        "import os, sys\n"
        "from lamina.registry import upload\n"
        "remember = upload._Upload._remember\n"
        "def stop(self, opened):\n"
        "    found = remember(self, opened)\n"
        "    if opened.offset: os.kill(os.getpid(), 9)\n"
        "    return found\n"
        "upload._Upload._remember = stop\n"
        f"sys.argv = ['lamina', 'push', '-q', '{name}']\n"
        "from lamina.cli.main import console\n"
        "console()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=command.env, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = [d for d in store.documents.list(StoreJournal.KIND) if str(upload.CHUNK) in d.body]
    assert left.kind == "upload"
    push(store, registries, name)
    log = docker_registry.log.read_text()
    assert log.count('"PATCH ') == 3  # one before it was killed, two after
    assert "POST /v2/big/blobs/uploads/" in log
    assert store.documents.list(StoreJournal.KIND) == []
    other = registries.repository(Reference.parse(name))
    assert other.exists(manifest.layers[0])


@pytest.mark.tool("docker-registry")
def test_a_push_killed_anywhere_ends_well(
    docker_registry: Distribution, store: LocalStore, registries: Registries, command: Lamina
) -> None:
    name = f"{docker_registry.host}/big:1"
    manifest = big_image(store, name)
    with started(command, "push", "-q", name) as process:
        uploads = docker_registry.storage

        def begun() -> bool:
            with contextlib.suppress(FileNotFoundError):  # the registry moves what is whole
                return any(p.stat().st_size > 1 << 20 for p in uploads.rglob("_uploads/*/data"))
            return False

        wait_until(begun, "a megabyte at the registry", pause=0.005, process=process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    push(store, registries, name)
    target = store.metadata.get_name(name)
    assert target is not None
    assert Image.open(store, target.target).manifest() == manifest


def test_a_registry_without_pieces_gets_the_blob_in_one(
    fake: FakeRegistry, store: LocalStore, registries: Registries
) -> None:
    manifest = big_image(store, f"{fake.host}/big:1")
    fake.no_chunks = True
    push(store, registries, f"{fake.host}/big:1")
    assert fake.blobs[str(manifest.layers[0].digest)]
    whole = [seen for seen in fake.requests("PATCH") if not seen.header("Content-Range")]
    assert [int(seen.header("Content-Length")) for seen in whole] == [manifest.layers[0].size]
