# SPDX-License-Identifier: Apache-2.0
"""What exporters share that put the results for several platforms into one output.

An image or an OCI archive is an index of the images, in the order of `--platform`; a tar or a
directory gets the trees in directories named as BuildKit names them (`linux_arm64`), unless
`platform-split=false` lays them over each other. A docker archive cannot hold an index.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.exporter.assemble import assemble
from lamina.spec import mediatype
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.exporter.ports import Output, PlatformResult
    from lamina.exporter.progress import Tell
    from lamina.exporter.rootfs import Tree
    from lamina.spec.descriptor import Descriptor
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken


def assemble_index(
    results: Sequence[PlatformResult],
    store: Store,
    output: Output,
    *,
    tell: Tell,
    cancel: CancelToken,
) -> Descriptor:
    """The index of the results' images, all of it in the store, without a name."""
    from lamina.image.platforms import add_index

    entries: list[Descriptor] = []
    for part in results:
        own = output.placed(f"manifest[{part.platform}]")
        manifest = replace(
            output, annotations=tuple(sorted({**dict(output.annotations), **dict(own)}.items()))
        )
        made = assemble(part.result, store, manifest, tell=tell, cancel=cancel)
        if output.unpack:
            from lamina.image.unpack import ensure_snapshot
            from lamina.image.view import Image

            stack = Image.open(store, made.target).config().diff_ids
            ensure_snapshot(store, stack, emit=tell.emit, cancel=cancel)
        entries.append(
            replace(
                made.target,
                platform=part.platform,
                annotations=(
                    *output.placed("manifest-descriptor"),
                    *output.placed(f"manifest-descriptor[{part.platform}]"),
                ),
            )
        )
    media_type = mediatype.OCI_INDEX if output.oci_mediatypes else mediatype.DOCKER_MANIFEST_LIST
    return add_index(store, entries, media_type=media_type, annotations=output.placed("index"))


def directory_of(platform: Platform) -> str:
    """The directory of a platform's files, as BuildKit names it: `linux_arm_v7`."""
    return str(platform).replace("/", "_")


def check_overlap(results: Sequence[PlatformResult], trees: Sequence[Tree]) -> None:
    """Raise LaminaError of kind CONFLICT if two platforms have a file of one path."""
    from lamina.layer.entry import EntryType
    from lamina.system.paths import shown

    owners: dict[bytes, str] = {}
    for part, tree in zip(results, trees, strict=True):
        with tree() as items:
            for entry, _ in items:
                if entry.type is EntryType.DIR:
                    continue
                other = owners.setdefault(entry.path, str(part.platform))
                if other != str(part.platform):
                    raise LaminaError(
                        f"cannot overwrite {shown(entry.path)} from {other} with "
                        f"{part.platform} when split option is disabled",
                        kind=Kind.CONFLICT,
                    )
