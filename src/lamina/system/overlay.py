# SPDX-License-Identifier: Apache-2.0
"""What an overlay is made of, as values. `mounts` mounts it."""

from __future__ import annotations

from lamina.start.record import Record


class LayerImage(Record):
    """A layer that is an EROFS file which lamina wrote (layer.wrap): mounted when it is used."""

    path: str


class OverlayMount(Record):
    """How to mount a snapshot: `lowers` top layer first; `upper` and `work` empty if read-only.

    Without lowers a writable mount is a bind of `upper`, a read-only one an empty directory.
    A lower is a directory or an image.
    """

    lowers: tuple[str | LayerImage, ...]
    upper: str = ""
    work: str = ""
