# SPDX-License-Identifier: Apache-2.0
"""Debian's docker-registry as a fixture, and short forms of pull and push, for tests."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from lamina.app.pulling import Pulled, PullOptions, pull_image
from lamina.app.pushing import Pushed, push_image
from lamina.events import silent
from lamina.image.view import Image
from lamina.registry.client import Registries
from lamina.spec.manifest import Manifest
from lamina.spec.platform import Platform
from lamina.start.record import Record
from lamina.store import LocalStore
from lamina.tasks import CancelToken, Work
from lamina.testing.fakeregistry import FakeRegistry
from lamina.testing.images import AMD64, ImageMaker
from lamina.testing.waiting import wait_for_server


class Distribution(Record):
    """A running docker-registry: its host, its storage, its log."""

    host: str
    storage: Path
    log: Path


@contextlib.contextmanager
def distribution(place: Path, *, http: str = "", auth: str = "") -> Iterator[Distribution]:
    """A docker-registry with its data in `place`; `http` and `auth` are added to its config."""
    place.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = place / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {place}/data}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}', secret: s{http}}}\n{auth}"
    )
    log = place / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=output, stderr=output
        )
    try:
        wait_for_server(port, process)
        yield Distribution(f"127.0.0.1:{port}", place / "data", log)
    finally:
        process.kill()
        process.wait()


def push(store: LocalStore, registries: Registries, name: str) -> Pushed:
    """Push from a host of AMD64, telling nobody."""
    return push_image(
        store,
        registries,
        name,
        host=AMD64,
        work=Work(emit=silent, cancel=CancelToken(), clock=time.time),
    )


def pull(
    store: LocalStore, registries: Registries, name: str, platform: Platform | None = None
) -> Pulled:
    """Pull to a host of AMD64, telling nobody."""
    return pull_image(
        store,
        registries,
        name,
        PullOptions(host=AMD64, platform=platform),
        work=Work(emit=silent, cancel=CancelToken(), clock=time.time),
    )


def put(fake: FakeRegistry, name: str, manifest: Manifest) -> None:
    """Let `name:1` be the manifest."""
    fake.manifests[name, "1"] = (manifest.media_type, manifest.raw)


def image_in(fake: FakeRegistry, store: LocalStore, name: str) -> Manifest:
    """An image `name:1` in the fake registry; it is in `store` too."""
    packed = ImageMaker(store)(name)
    manifest = Image.open(store, packed.target).manifest()
    for part in (*manifest.layers, manifest.config):
        fake.add_blob(store.content.read(part.digest, limit=1 << 20))
    put(fake, name, manifest)
    return manifest
