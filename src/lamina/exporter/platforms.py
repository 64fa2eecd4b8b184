# SPDX-License-Identifier: Apache-2.0
"""The index of the images for several platforms, in the order of `--platform`."""

from __future__ import annotations

from lamina.exporter.assemble import assemble
from lamina.image.platforms import add_index
from lamina.image.unpack import ensure_snapshot
from lamina.image.view import Image
from lamina.spec import mediatype
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.exporter.ports import Output, PlatformResult
    from lamina.spec.descriptor import Descriptor
    from lamina.store.ports import Store
    from lamina.tasks import Work


def assemble_index(
    results: Sequence[PlatformResult], store: Store, output: Output, *, work: Work
) -> Descriptor:
    """The index of the results' images, all of it in the store, without a name."""
    entries: list[Descriptor] = []
    for part in results:
        own = output.placed(f"manifest[{part.platform}]")
        manifest = replace(
            output, annotations=tuple(sorted({**dict(output.annotations), **dict(own)}.items()))
        )
        made = assemble(part.result, store, manifest, work=work)
        if output.unpack:
            stack = Image.open(store, made.target).config().diff_ids
            ensure_snapshot(store, stack, work=work)
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
