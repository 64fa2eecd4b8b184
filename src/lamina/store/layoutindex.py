# SPDX-License-Identifier: Apache-2.0
"""`oci-layout` and `index.json`: the names of the store as other tools read them.

One entry a name, with the annotations `org.opencontainers.image.ref.name` (the familiar form,
`app:latest`, which is what `skopeo inspect oci:ROOT:app:latest` and umoci look for) and
`io.containerd.image.name` (the full name). The database is the truth; this file follows it.
"""

from __future__ import annotations

import os

from lamina.errors import LaminaError
from lamina.spec.descriptor import Descriptor, annotations_of
from lamina.spec.document import dump, parse_object
from lamina.spec.reference import Reference
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
LAYOUT_FILE, INDEX_FILE = "oci-layout", "index.json"
REF_NAME = "org.opencontainers.image.ref.name"
FULL_NAME = "io.containerd.image.name"
MAX_INDEX = 64 * 1024 * 1024  # bytes; more than 100,000 names


def serialise_index(names: Iterable[tuple[str, Descriptor]]) -> bytes:
    """The bytes of index.json for (full name, target), in the order given."""
    entries = [_entry(name, target).to_json() for name, target in names]
    return dump(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": entries,
        }
    )


def stage_index(root: str, content: bytes) -> str:
    """Write the next index.json beside the present one, flushed; the path to rename from."""
    temporary = os.path.join(root, INDEX_FILE + ".new")
    write_file(temporary, content)
    return temporary


def write_file(path: str, content: bytes) -> None:
    """Replace the content of `path` and flush it. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path, flags, 0o644)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fdatasync(fd)
    finally:
        os.close(fd)


def publish_index(root: str, temporary: str) -> None:
    """Make the staged file index.json."""
    os.rename(temporary, os.path.join(root, INDEX_FILE))


def read_index(root: str) -> list[tuple[str, Descriptor]]:
    """(full name, target) of every named entry; nothing if the file is missing or malformed."""
    try:
        with open(os.path.join(root, INDEX_FILE), "rb") as file:
            raw = file.read(MAX_INDEX + 1)
        # no `Index`: an image's has fewer entries than a store may have names
        manifests = parse_object(raw, what="index.json", limit=MAX_INDEX).get("manifests")
        entries = [Descriptor.from_json(entry) for entry in _list(manifests)]
    except (OSError, LaminaError):
        return []
    return [(name, _plain(entry)) for entry in entries if (name := _full_name(entry))]


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _full_name(entry: Descriptor) -> str:
    full = entry.annotation(FULL_NAME)
    if full:
        return full
    try:
        return str(Reference.parse(entry.annotation(REF_NAME) or "").with_default_tag())
    except LaminaError:
        return ""


def _plain(entry: Descriptor) -> Descriptor:
    """The descriptor without the annotations that this file adds."""
    kept = tuple(pair for pair in entry.annotations if pair[0] not in {REF_NAME, FULL_NAME})
    return replace(entry, annotations=kept)


def _entry(name: str, target: Descriptor) -> Descriptor:
    annotations = dict(target.annotations)
    annotations[REF_NAME] = _familiar(name)
    annotations[FULL_NAME] = name
    return replace(target, annotations=annotations_of(annotations))


def _familiar(name: str) -> str:
    try:
        return Reference.parse(name).familiar()
    except LaminaError:
        return name
