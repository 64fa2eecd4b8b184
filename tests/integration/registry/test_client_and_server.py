# SPDX-License-Identifier: Apache-2.0
"""lamina's client and lamina's registry together: restarts in the middle, builds without it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Self

import pytest

from lamina.app.pushing import push_image
from lamina.events import silent
from lamina.image.names import set_names
from lamina.layer.create import create_layer
from lamina.layer.entry import Entry, EntryType
from lamina.registry.client import Registries
from lamina.registry.graph import copy_graph
from lamina.registry.journal import StoreJournal
from lamina.registry.storeend import StoreEnd
from lamina.registry.upload import RegistrySink
from lamina.spec.config import ImageConfig
from lamina.spec.descriptor import Descriptor
from lamina.spec.manifest import Manifest
from lamina.spec.mediatype import OCI_CONFIG, OCI_LAYER
from lamina.spec.reference import Reference
from lamina.store import LocalStore
from lamina.store.ports import Ingest
from lamina.tasks import CancelToken, Work
from lamina.testing.command import Lamina
from lamina.testing.images import AMD64, ImageMaker
from lamina.testing.registry import RegistryServer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.registry.ports import Report

MIB = 1 << 20
SIZE = 72 * MIB  # three pieces of an upload


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RegistryServer]:
    with RegistryServer(tmp_path / "server") as running:
        yield running


def big_image(store: LocalStore) -> Manifest:
    data = os.urandom(MIB) * (SIZE // MIB)
    entry = Entry(b"big", EntryType.FILE, 0o644, size=len(data))
    with store.lease("test"):
        with store.content.ingest("big") as ingest:
            made = create_layer([(entry, data)], ingest.write, compression="uncompressed")
            length = ingest.offset
            layer = Descriptor(OCI_LAYER, ingest.commit(), length)
        store.metadata.put_layer(made.diff_id, made.size, layer)
        config = ImageConfig("amd64", "linux", diff_ids=(made.diff_id,)).serialise()
        store.content.add(config)
        manifest = Manifest.make(Descriptor.of(OCI_CONFIG, config), [layer])
        store.content.add(manifest.raw)
    return manifest


class Disturbed(StoreEnd):
    """A store whose layer, read at `position` or behind it, calls `disturb` once before."""

    def __init__(self, store: LocalStore, position: int, disturb: Callable[[], object]) -> None:
        super().__init__(store)
        self.position = position
        self.disturb: Callable[[], object] | None = disturb
        self.offsets: list[int] = []

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> IO[bytes]:
        inner = super().open(descriptor, offset=offset)
        if descriptor.size < MIB:
            return inner
        self.offsets.append(offset)
        owner, read = self, inner.read

        class Stream:
            at = offset

            def read(self, size: int = -1, /) -> bytes:
                if owner.disturb is not None and self.at >= owner.position:
                    disturb, owner.disturb = owner.disturb, None
                    disturb()
                data = read(size)
                self.at += len(data)
                return data

            def close(self) -> None:
                inner.close()

            def __enter__(self) -> Self:
                return self

            def __exit__(self, *exc: object) -> None:
                inner.close()

        return Stream()  # type: ignore[return-value]  # only read and close are used


def send(
    source: StoreEnd,
    store: LocalStore,
    manifest: Manifest,
    registries: Registries,
    name: str,
) -> None:
    reference = Reference.parse(name)
    sink = RegistrySink(
        registries.repository(reference, for_push=True).own,
        root=manifest.descriptor().digest,
        tags=(reference.tag,),
        journal=StoreJournal(store, clock=lambda: 0.0),
    )
    copy_graph(
        source,
        sink,
        manifest.descriptor(),
        work=Work(emit=silent, cancel=CancelToken(), clock=lambda: 0.0),
    )


def restart(server: RegistryServer) -> None:
    server.kill()
    server.start()


def test_a_push_outlives_a_restart_of_the_registry(
    server: RegistryServer, store: LocalStore, registries: Registries
) -> None:
    manifest = big_image(store)
    source = Disturbed(store, SIZE * 2 // 3, lambda: restart(server))
    send(source, store, manifest, registries, f"{server.host}/big:1")
    assert source.disturb is None, "the registry was not restarted"
    resumed = [offset for offset in source.offsets if offset]
    assert resumed, "the push began again instead of going on"
    answer = server.client()("HEAD", f"/v2/big/blobs/{manifest.layers[0].digest}")
    assert answer.status == 200


def test_a_push_that_died_goes_on_after_a_restart_of_the_registry(
    server: RegistryServer, store: LocalStore, registries: Registries
) -> None:
    class Killed(Exception):
        """Stands for the end of the process: nothing is tidied up after it."""

    def die() -> None:
        raise Killed

    manifest = big_image(store)
    name = f"{server.host}/big:1"
    with pytest.raises(Killed):
        send(Disturbed(store, SIZE * 2 // 3, die), store, manifest, registries, name)
    restart(server)
    source = Disturbed(store, SIZE, lambda: None)
    send(source, store, manifest, registries, name)
    assert source.offsets[0] >= 32 * MIB
    assert store.documents.list(StoreJournal.KIND) == []


def test_a_pull_outlives_a_restart_of_the_registry(
    server: RegistryServer,
    store: LocalStore,
    other_store: LocalStore,
    registries: Registries,
) -> None:
    manifest = big_image(store)
    name = f"{server.host}/big:1"
    send(StoreEnd(store), store, manifest, registries, name)
    repository = registries.repository(Reference.parse(name))
    offsets: list[int] = []
    restarts = [lambda: restart(server)]

    class Source:
        exists = staticmethod(repository.exists)
        document = staticmethod(repository.document)

        @staticmethod
        def open(descriptor: Descriptor, *, offset: int = 0) -> IO[bytes]:
            if descriptor == manifest.layers[0]:
                offsets.append(offset)
            return repository.open(descriptor, offset=offset)

    class Sink(StoreEnd):
        def _watch(self, ingest: Ingest, descriptor: Descriptor, report: Report) -> Report:
            def reported(size: int) -> None:
                report(size)
                if size > 8 * MIB and restarts:
                    restarts.pop()()

            return super()._watch(ingest, descriptor, reported)

    with other_store.lease("test"):
        copy_graph(
            Source(),
            Sink(other_store),
            manifest.descriptor(),
            work=Work(emit=silent, cancel=CancelToken(), clock=lambda: 0.0),
        )
    assert not restarts
    assert offsets[0] == 0
    assert all(offset > 8 * MIB for offset in offsets[1:]), offsets
    other_store.content.verify(manifest.layers[0].digest)


@pytest.mark.root
@pytest.mark.tool("crun")
def test_a_cached_build_needs_no_registry(
    server: RegistryServer, store: LocalStore, registries: Registries, tmp_path: Path
) -> None:
    base = f"{server.host}/team/base:1"
    packed = ImageMaker(store)("content", base)
    push_image(
        store,
        registries,
        base,
        host=AMD64,
        work=Work(emit=silent, cancel=CancelToken(), clock=lambda: 0.0),
    )
    (tmp_path / "work").mkdir()
    (tmp_path / "work/Dockerfile").write_text(f"FROM {base}\nCOPY Dockerfile /d\nENV a=b\n")
    lamina = Lamina(tmp_path / "builder", tmp_path)
    app = f"{server.host}/team/app:1"
    lamina("build", "-t", app, "work")
    # the base's layer is in the registry already: it is mounted, only ours travels
    pushed = lamina("push", app).stdout
    assert "(2 blobs pushed, 1 mounted, 0 already there)" in pushed
    (layer,) = [one for one in _layers(store, packed.target) if one.media_type]
    server.stop()

    again = lamina("build", "--progress=plain", "-t", app, "work")
    assert "CACHED" in again.stderr
    assert "DONE" not in again.stderr
    asked = lamina("build", "--pull", "-t", app, "work", check=False)
    assert asked.returncode == 7
    assert base in asked.stderr
    assert "nothing listens there" in asked.stderr
    lamina("build", "-t", app, "work")  # and that changed nothing
    server.start()
    lamina("build", "--pull", "-t", app, "work")
    assert server.client()("HEAD", f"/v2/team/app/blobs/{layer.digest}").status == 200


def _layers(store: LocalStore, target: Descriptor) -> tuple[Descriptor, ...]:
    raw = store.content.read(target.digest, limit=MIB)
    return Manifest.parse(raw, media_type=target.media_type).layers


def test_a_name_without_anything_new_is_pushed_without_bytes(
    server: RegistryServer, store: LocalStore, registries: Registries, command: Lamina
) -> None:
    first, second = f"{server.host}/app:1", f"{server.host}/app:2"
    packed = ImageMaker(store)("content", first)
    set_names(store, [second], packed.target)
    assert "(2 blobs pushed, 0 mounted, 0 already there)" in command("push", first).stdout
    assert "(0 blobs pushed, 0 mounted, 2 already there)" in command("push", second).stdout
