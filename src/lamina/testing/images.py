# SPDX-License-Identifier: Apache-2.0
"""Small images for tests that need one in a store."""

from __future__ import annotations

from lamina.exporter.ports import BuildResult
from lamina.image.blobs import fresh_ingest
from lamina.image.names import set_names
from lamina.image.pack import Packed, PackOptions, pack_image
from lamina.image.view import Image
from lamina.layer.create import create_layer
from lamina.layer.entry import Entry, EntryType
from lamina.spec.config import History, RunConfig
from lamina.spec.descriptor import Descriptor
from lamina.spec.mediatype import OCI_LAYER_GZIP
from lamina.spec.platform import Platform
from lamina.start.record import replace
from lamina.tasks import CancelToken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.spec.digest import DiffID
    from lamina.store.ports import Store

AMD64 = Platform("linux", "amd64")


class ImageMaker:
    """Makes images whose content is a text; equal texts are equal images."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __call__(self, content: str, *names: str, platform: Platform = AMD64) -> Packed:
        data = content.encode()
        items = [
            (Entry(b"etc", EntryType.DIR, 0o755), None),
            (Entry(b"etc/content", EntryType.FILE, 0o644, size=len(data)), data),
        ]
        options = PackOptions(
            platform=platform, created="2023-11-14T22:13:20Z", config=RunConfig(cmd=(content,))
        )
        with self.store.lease("test"):
            packed = pack_image(self.store, iter(items), options, key=content, cancel=CancelToken())
            set_names(self.store, names, packed.target)
        return packed


class ResultMaker:
    """Makes results of builds: a base image of one layer and one layer for each content."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.base = ImageMaker(store)("base")

    def layer(self, name: str, *, mtime: int = 1_600_000_000) -> DiffID:
        """A layer with one file of that name and content, kept as a gzip blob."""
        data = name.encode()
        entry = Entry(data, EntryType.FILE, 0o644, size=len(data), mtime_ns=mtime * 1_000_000_000)
        with fresh_ingest(self.store, f"layer {name}") as ingest:
            created = create_layer([(entry, data)], ingest.write, cancel=CancelToken())
            assert created.digest is not None
            ingest.commit(digest=created.digest, size=created.compressed_size)
        blob = Descriptor(OCI_LAYER_GZIP, created.digest, created.compressed_size)
        self.store.metadata.put_layer(created.diff_id, created.size, blob)
        return created.diff_id

    def __call__(
        self,
        *contents: str,
        names: tuple[str, ...] = (),
        created: float = 1_650_000_000.0,
        epoch: int | None = None,
        cached: bool = False,
        mtime: int = 1_600_000_000,
    ) -> BuildResult:
        base = Image.open(self.store, self.base.target).config()
        with self.store.lease("test"):
            layers = tuple(self.layer(content, mtime=mtime) for content in contents)
        history = tuple(History(created_by=f"COPY {content} /") for content in contents)
        config = replace(
            base,
            history=(*base.history, *history, History(created_by="CMD x", empty_layer=True)),
            config=replace(base.config, cmd=("x",)),
        )
        return BuildResult((*base.diff_ids, *layers), config, 1, names, created, epoch, cached)
