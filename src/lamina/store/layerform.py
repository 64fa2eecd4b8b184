# SPDX-License-Identifier: Apache-2.0
"""Whether layers are kept as EROFS files here: what was asked for, and what the kernel can do."""

from __future__ import annotations

import io
import logging
import os

from lamina.errors import Kind, LaminaError
from lamina.layer.wrap import wrap_layer
from lamina.system.mounts import image_fd, overlay_fd
from lamina.system.overlay import LayerImage, OverlayMount
from lamina.system.temporary import make_temporary
from lamina.system.userns import is_host_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.store.ports import LayerForm

_log = logging.getLogger(__name__)
_EMPTY_TAR = bytes(1024)


def makes_images(root: str, wanted: LayerForm) -> bool:
    """Whether new layers in the store at `root` become images.

    `auto` asks the kernel, by an image of nothing mounted as the lower layer of an overlay, and
    does without loop devices, which every user of the host shares; `erofs` takes them.

    Raises:
        LaminaError: kind UNSUPPORTED if `erofs` is wanted and cannot be had.
    """
    if wanted == "directories" or (wanted == "auto" and not is_host_root()):
        return False
    try:
        _try(root, loop=wanted == "erofs")
    except LaminaError as error:
        if wanted == "erofs":
            raise LaminaError(
                f"layers cannot be EROFS images here: {error}",
                kind=Kind.UNSUPPORTED,
                hint="set layers to auto or directories",
            ) from error
        _log.debug("layers are unpacked, not mounted: %s", error)
        return False
    return True


def _try(root: str, *, loop: bool) -> None:
    # not among the snapshots, where GC removes what has no row
    place = make_temporary(os.path.join(root, "tmp", "probes"), "probe-")
    try:
        path = os.path.join(place.path, "layer.erofs")
        wrap_layer(io.BytesIO(_EMPTY_TAR), path, expected=None, lowers=())
        image = LayerImage(path)
        os.close(image_fd(image, loop=loop))
        lower = os.path.join(place.path, "fs")
        os.mkdir(lower)
        os.close(overlay_fd(OverlayMount((image, lower))))
    finally:
        place.remove()
