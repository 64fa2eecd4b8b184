# SPDX-License-Identifier: Apache-2.0
"""`--metadata-file`: what was built, under the keys that buildx writes."""

from __future__ import annotations

import json
import os

from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.mediatype import OCI_MANIFEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lamina.app.buildrequest import BuildOutcome
    from lamina.spec.digest import Digest
    from lamina.store.ports import Store


def metadata(outcome: BuildOutcome, store: Store) -> dict[str, Any]:
    """The document of one build, keys sorted. `buildx.build.ref` ends in the record's id."""
    document: dict[str, Any] = {"buildx.build.ref": f"lamina/lamina/{outcome.id}"}
    if outcome.config is not None:  # an index has none
        document["containerimage.config.digest"] = str(outcome.config)
    if outcome.manifest is not None:
        document["containerimage.descriptor"] = _descriptor(outcome.manifest, store)
        document["containerimage.digest"] = str(outcome.manifest)
    if outcome.names:
        document["image.name"] = ",".join(outcome.names)
    return document


def _descriptor(manifest: Digest, store: Store) -> dict[str, Any]:
    raw = store.content.read(manifest, limit=MAX_DOCUMENT)
    media_type = json.loads(raw).get("mediaType", OCI_MANIFEST)
    return {"mediaType": media_type, "digest": str(manifest), "size": len(raw)}


def write_metadata(path: str, document: dict[str, Any]) -> None:
    """Write it aside and rename: a reader sees the old file or the whole new one."""
    partial = f"{path}.lamina-partial"
    with open(partial, "w", encoding="utf-8") as file:
        file.write(json.dumps(document, indent=2) + "\n")
    os.replace(partial, path)
