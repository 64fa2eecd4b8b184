# SPDX-License-Identifier: Apache-2.0
"""A store in a temporary directory, and commands run on it in this process."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import pytest

from lamina.cli.context import Context
from lamina.cli.main import main
from lamina.container.ports import ProcessSpec
from lamina.container.state import ContainerConfig, State, directory_of, write_state
from lamina.errors import EXIT_STATUS, Kind
from lamina.image.names import set_names
from lamina.image.resolve import find_image
from lamina.spec.descriptor import Descriptor
from lamina.spec.digest import Digest
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.manifest import Manifest
from lamina.spec.mediatype import OCI_MANIFEST
from lamina.store import open_store
from lamina.store.ports import Document
from lamina.testing.images import ImageMaker

if TYPE_CHECKING:
    from pathlib import Path

    from lamina.image.view import Image
    from lamina.store.ports import Store

NOW = 1_700_000_000.0 + 3 * 86400  # three days after the images were made


class Stream(io.TextIOWrapper):
    """A text stream over bytes, as the standard ones are."""

    def __init__(self, data: bytes = b"", *, tty: bool = False) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8", write_through=True)
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty

    def text(self) -> str:
        return self.raw_bytes().decode()

    def raw_bytes(self) -> bytes:
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue()


class World:
    """A store in a temporary directory, and commands run on it in this process."""

    def __init__(self, tmp_path: Path) -> None:
        self.cwd = tmp_path
        self.root = str(tmp_path / "store")
        self.env: dict[str, str] = {}
        self.tty = False
        self.clock = lambda: NOW

    def run(self, *argv: str, stdin: bytes = b"") -> tuple[int, str, str]:
        status, out, err = self.run_bytes(*argv, stdin=stdin)
        return status, out.decode(), err

    def run_bytes(self, *argv: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
        out, err = Stream(tty=self.tty), Stream()
        context = Context(
            env=self.env,
            cwd=str(self.cwd),
            uid=0,
            stdin=Stream(stdin, tty=self.tty),
            stdout=out,
            stderr=err,
            clock=self.clock,
            root=self.root,
        )
        try:
            status = main(argv, context)
        finally:
            context.close()
        return status, out.raw_bytes(), err.text()

    def ok(self, *argv: str, stdin: bytes = b"") -> str:
        status, out, err = self.run(*argv, stdin=stdin)
        assert status == 0, err
        return out

    def fails(self, kind: Kind, *argv: str, stdin: bytes = b"") -> str:
        status, _, err = self.run(*argv, stdin=stdin)
        assert status == EXIT_STATUS[kind], err
        assert "Traceback" not in err
        return err

    def make(self, content: str, *names: str) -> str:
        """An image's id."""
        store = open_store(self.root)
        try:
            return str(ImageMaker(store)(content, *names).config)
        finally:
            store.close()

    def make_container(self, name: str, image_id: str) -> str:
        """A container's id."""
        id = name.encode().hex().ljust(64, "0")
        config = ContainerConfig(
            image="app", image_id=image_id, chain="", process=ProcessSpec(argv=("x",), env=())
        )
        store = open_store(self.root)
        try:
            store.documents.insert(Document("container", id, name, config.to_json(), 0.0))
        finally:
            store.close()
        directory = directory_of(self.root, id)
        os.makedirs(directory)
        write_state(directory, State(status="created"))
        return id

    def repack(self, image: str, *names: str) -> str:
        """The same image in another manifest: its digest."""
        store = open_store(self.root)
        try:
            return str(repacked(store, find_image(store, image), *names).digest)
        finally:
            store.close()

    def keep(self, digest: str) -> None:
        """Keep a manifest as dangling, as lamina did for the same image under a name, too."""
        store = open_store(self.root)
        try:
            raw = store.content.read(Digest.parse(digest), limit=MAX_DOCUMENT)
            store.metadata.set_names([digest], Descriptor.of(OCI_MANIFEST, raw))
        finally:
            store.close()

    def name(self, name: str, image: str) -> None:
        """Give the image a name that `tag` does not give."""
        store = open_store(self.root)
        try:
            set_names(store, [name], find_image(store, image).target)
        finally:
            store.close()

    def digest_of(self, image: str) -> str:
        """The digest of the image's manifest."""
        return self.ok("inspect", "-f", "{{.Descriptor.digest}}", image).strip()


def repacked(store: Store, image: Image, *names: str) -> Descriptor:
    """The same image in another manifest, with these names."""
    manifest = Manifest.make(
        image.manifest().config, image.manifest().layers, annotations=[("packed", "again")]
    )
    with store.lease("test"):
        store.content.add(manifest.raw)
        if names:
            set_names(store, names, manifest.descriptor())
    return manifest.descriptor()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
