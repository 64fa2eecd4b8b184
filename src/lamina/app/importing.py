# SPDX-License-Identifier: Apache-2.0
"""`lamina import`: a root filesystem (tar, compressed tar, directory) as an image."""

from __future__ import annotations

import tempfile

from lamina.image.changes import changed
from lamina.image.names import set_names
from lamina.image.pack import Packed, PackOptions, pack_image, sorted_tar_items
from lamina.image.times import format_time
from lamina.image.told import tell_image
from lamina.layer.compress import decompressed
from lamina.layer.walk import tree_items
from lamina.spec.config import RunConfig
from lamina.spec.reference import Reference
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken


class ImportOptions(Record):
    """`names` are normalised references (none: the image has only its id). `changes` are
    Dockerfile instructions. `created` is now, `epoch` SOURCE_DATE_EPOCH (POSIX seconds).
    """

    names: tuple[str, ...]
    platform: Platform
    created: float
    epoch: int | None = None
    changes: tuple[str, ...] = ()
    message: str = ""
    config: RunConfig = RunConfig()


def import_tar(
    store: Store, stream: IO[bytes], options: ImportOptions, *, key: str, cancel: CancelToken
) -> Packed:
    """The image of a root filesystem tar, plain or compressed with gzip, zstd, xz or bzip2.

    Raises:
        LaminaError: INVALID or INTEGRITY for a bad archive, a bad change, EXHAUSTED for a full
            disk. The store has no new name then.
    """
    packing = pack_options(options)
    with store.lease("import"), tempfile.TemporaryFile(dir=f"{store.root}/ingest") as spool:
        items = sorted_tar_items(decompressed(stream), spool, cancel=cancel)
        packed = pack_image(store, items, packing, key=key, cancel=cancel)
        set_names(store, options.names, packed.target)
        _tell(store, options, packed)
    return packed


def import_directory(
    store: Store, path: str, options: ImportOptions, *, key: str, cancel: CancelToken
) -> Packed:
    """The image of a directory tree, owners as they are. Raises as `import_tar`, and OSError."""
    packing = pack_options(options)
    with store.lease("import"):
        packed = pack_image(store, tree_items(path), packing, key=key, cancel=cancel)
        set_names(store, options.names, packed.target)
        _tell(store, options, packed)
    return packed


def _tell(store: Store, options: ImportOptions, packed: Packed) -> None:
    tell_image(store, "import", packed.target)
    tagged = [Reference.parse(name).familiar() for name in options.names]
    tell_image(store, "tag", packed.target, names=tagged)


def pack_options(options: ImportOptions) -> PackOptions:
    """What the image will say of itself. Raises InvalidDockerfile-like errors for a change."""
    return PackOptions(
        platform=options.platform,
        created=format_time(options.created if options.epoch is None else options.epoch),
        config=changed(options.config, options.changes),
        comment=options.message,
        clamp_mtime=options.epoch,
    )
