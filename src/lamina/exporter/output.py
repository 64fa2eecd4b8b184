# SPDX-License-Identifier: Apache-2.0
"""What `--output` asks for, as a value. `options` reads it from text."""

from __future__ import annotations

from lamina.start.record import Record


class Output(Record):
    """A checked `--output`. `dest` is a path, `-` for standard output, empty for `image`.

    `names` are further image names (`name=`), `annotations` go into the manifest, sorted by key.
    `type=cacheonly` makes nothing: the build only fills the cache. `platform_split` puts the files
    of `type=local` and `type=tar` into a directory named for the platform (`linux_amd64`); None:
    if there are several. `placed_annotations` are for other places than every manifest: (place,
    name, value), the place as `annotation_place` gives it. `push` sends the
    names to their registries once they are set.
    """

    type: str = "image"
    dest: str = ""
    names: tuple[str, ...] = ()
    compression: str = "gzip"
    compression_level: int | None = None
    force_compression: bool = False
    oci_mediatypes: bool = True
    annotations: tuple[tuple[str, str], ...] = ()
    tar: bool = True
    unpack: bool = False
    platform_split: bool | None = None
    push: bool = False
    placed_annotations: tuple[tuple[str, str, str], ...] = ()

    def placed(self, place: str) -> tuple[tuple[str, str], ...]:
        """The annotations for `place`, sorted by key."""
        return tuple((name, value) for at, name, value in self.placed_annotations if at == place)
