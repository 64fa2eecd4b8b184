# SPDX-License-Identifier: Apache-2.0
"""`lamina.images`: the images of a store as Python programs use them."""

from __future__ import annotations

import builtins
import io
import os

from lamina.app import images as use_cases
from lamina.app.apistore import find_image, open_store
from lamina.app.removing import remove_image
from lamina.errors import Kind, LaminaError
from lamina.events import silent
from lamina.exporter.destination import write_aside
from lamina.exporter.ports import Exported
from lamina.image.notebook import table
from lamina.image.sizes import human_size
from lamina.image.view import Image
from lamina.spec.platform import Platform, host
from lamina.tasks import CancelToken as Token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

    from lamina.app.images import HistoryLine
    from lamina.tasks import CancelToken

__all__ = ["History", "Images", "images_api"]


class History(builtins.list["HistoryLine"]):
    """The steps that made an image, newest first; a notebook shows a table."""

    def _repr_html_(self) -> str:
        return table(
            ("Created", "Created by", "Size", "Comment"),
            [
                (
                    line.entry.created or "",
                    line.entry.created_by,
                    human_size(line.size),
                    line.entry.comment,
                )
                for line in self
            ],
        )


class Images:
    """The images of a store, which is the user's unless a `root` is given. An image is named by its
    name, its id, the beginning of that, or an `Image`.
    """

    def __repr__(self) -> str:
        return "<lamina.images: list, get, tag, save, load, remove, history>"

    def list(self, name: str = "", *, root: str = "") -> builtins.list[Image]:
        """Each image once, newest first; those of a name (`repo`, `repo:tag`, wildcards) if one is given.
        Damaged ones are left out. Of images for several platforms it is that for this host.
        """
        filters = use_cases.Filters(references=(name,) if name else ())
        found = use_cases.list_images(
            open_store(root), platform=_platform(""), filters=filters, emit=silent
        )
        return builtins.list({listed.image.id: listed.image for listed in found}.values())

    def get(self, name: str, *, platform: str = "", root: str = "") -> Image:
        """The image, of several platforms that for `platform`, else for this host, else the first.

        Raises:
            LaminaError: NOT_FOUND, INVALID if several ids begin so.
        """
        return find_image(name, platform=platform, root=root)

    def tag(self, image: Image | str, name: str, *, root: str = "") -> None:
        """Give the image another name, which may be another image's until then.

        Raises:
            LaminaError: NOT_FOUND, USAGE or INVALID for a name that is none.
        """
        use_cases.tag(open_store(root), _text(image), name)

    def history(self, image: Image | str, *, platform: str = "", root: str = "") -> History:
        """The steps that made it, newest first, with the size of their layers. Raises as `get`."""
        lines = use_cases.history(
            open_store(root), _text(image), platform=_platform(platform), exact=bool(platform)
        )
        return History(lines)

    def attrs(self, image: Image | str, *, platform: str = "", root: str = "") -> dict[str, object]:
        """All that `docker image inspect` shows. Raises as `get`."""
        return use_cases.inspect_image(
            open_store(root), _text(image), platform=_platform(platform), exact=bool(platform)
        )

    def save(
        self,
        images: Image | str | Sequence[Image | str],
        output: str | os.PathLike[str] | IO[bytes],
        *,
        format: str = "docker-archive",
        platform: str = "",
        root: str = "",
        cancel: CancelToken | None = None,
    ) -> None:
        """Write images to an archive, a path (which appears when it is complete) or an open file. An
        `Image` takes its names along. `format` is docker-archive or oci-archive.

        Raises:
            LaminaError: NOT_FOUND, USAGE for another format, INTEGRITY.
        """
        if format not in {"docker-archive", "oci-archive"}:
            raise LaminaError(f"unknown archive format {format!r}", kind=Kind.USAGE)
        wanted = [images] if isinstance(images, Image | str) else builtins.list(images)
        texts = [text for each in wanted for text in _names(each)]
        store = open_store(root)

        def fill(write: Callable[[bytes], object]) -> None:
            use_cases.save_images(
                store,
                texts,
                write,
                format=format,
                platform=_platform(platform),
                exact=bool(platform),
                cancel=cancel or Token(),
            )

        if isinstance(output, str | os.PathLike):
            write_aside(os.path.abspath(output), fill, Exported(None, None)).finalize()
        else:
            fill(output.write)

    def load(
        self,
        archive: str | os.PathLike[str] | bytes | IO[bytes],
        *,
        platform: str = "",
        root: str = "",
        cancel: CancelToken | None = None,
    ) -> builtins.list[Image]:
        """The images of an archive of any tool (a path, its bytes, an open file), now in the store.

        Raises:
            LaminaError: INVALID, INTEGRITY, EXHAUSTED; the store is unchanged then.
        """
        if isinstance(archive, str | os.PathLike):
            with open(archive, "rb") as file:
                return self.load(file, platform=platform, root=root, cancel=cancel)
        stream = io.BytesIO(archive) if isinstance(archive, bytes) else archive
        loaded = use_cases.load_images(
            open_store(root),
            stream,
            platform=_platform(platform),
            exact=bool(platform),
            cancel=cancel or Token(),
        )
        return [find_image(str(each.config or each.target.digest), root=root) for each in loaded]

    def remove(
        self, image: Image | str, *, force: bool = False, prune: bool = True, root: str = ""
    ) -> builtins.list[str]:
        """Remove the name, or the image if its id is given and it has one name; what was removed, as
        `docker rmi` prints it. With `prune` what nothing needs any more is freed.

        Raises:
            LaminaError: NOT_FOUND, CONFLICT if a container or another name needs it and `force` is
                not given.
        """
        store = open_store(root)
        removals = remove_image(store, _text(image), force=force)
        if prune:
            use_cases.collect_garbage(store, emit=silent)
        return [f"{removal.verb}: {removal.subject}" for removal in removals]


def _text(image: Image | str) -> str:
    return str(image.id) if isinstance(image, Image) else image


def _names(image: Image | str) -> Sequence[str]:
    """What `save` is asked for: an image by all its names, or by its id if it has none."""
    if isinstance(image, str):
        return (image,)
    return image.tags or (str(image.id),)


def _platform(text: str) -> Platform:
    return Platform.parse(text) if text else host(os.uname().machine)


images_api = Images()
