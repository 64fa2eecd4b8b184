# SPDX-License-Identifier: Apache-2.0
"""Small images for tests that need one in a store."""

from __future__ import annotations

from lamina.image.names import set_names
from lamina.image.pack import Packed, PackOptions, pack_image
from lamina.layer.entry import Entry, EntryType
from lamina.spec.config import RunConfig
from lamina.spec.platform import Platform
from lamina.tasks import CancelToken

TYPE_CHECKING = False
if TYPE_CHECKING:
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
