# SPDX-License-Identifier: Apache-2.0
"""Images in a store: views, lookup by name, names and their removal, archives, unpacking.

May import store, layer, system, spec, tasks, events, errors. Start with `view` (what an image is
made of) and `resolve` (which image a text means); then `names` (tag, untag, what becomes of an
image that lost its last name), `archive_read` and `archive_write` (docker-archive and OCI layout
tars), `pack` (a root filesystem as an image), `unpack` (layers as snapshots;
`newlayer` for one that is being composed).
Specifications: image-spec manifest.md, config.md, image-layout.md.
"""

from __future__ import annotations

from lamina.image.resolve import find_image
from lamina.image.view import Image, Layer

__all__ = ["Image", "Layer", "find_image"]
