# SPDX-License-Identifier: Apache-2.0
"""Which image a text means: Docker's lookup order.

1. `sha256:` and 64 digits, or 64 digits: an image id (or the digest of a manifest).
2. A name, with `latest` if it has no tag; `name@digest` needs the digest to match.
3. The beginning of exactly one image id.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.image.names import is_dangling
from lamina.image.view import Image, PlatformNotFound
from lamina.spec import mediatype
from lamina.spec.digest import HEX_LENGTH
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.manifest import Index
from lamina.spec.reference import Reference, is_image_id
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.spec.descriptor import Descriptor
    from lamina.spec.digest import Digest
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store

HINT = (
    "get it with 'lamina pull', or make one with 'lamina build', 'lamina bootstrap', "
    "'lamina import' or 'lamina load'; 'lamina images' lists what is here"
)


class ImageNotFound(LaminaError):
    kind = Kind.NOT_FOUND


class AmbiguousImage(LaminaError):
    kind = Kind.INVALID


class Found(Record):
    """What a text means: the target, and the stored name if it was found by name, the image id if by
    that (neither: by the manifest's digest).
    """

    target: Descriptor
    name: str = ""
    id: Digest | None = None


def find_image(store: Store, text: str, platform: Platform | None = None) -> Image:
    """The image that `text` names, for `platform` (None: whatever it is for).

    Raises:
        ImageNotFound: kind NOT_FOUND: nothing by this name or id.
        PlatformNotFound: kind NOT_FOUND: it is there, but not for `platform`.
        AmbiguousImage: kind INVALID: several image ids begin with `text`.
        InvalidReference: kind INVALID.
    """
    target = find_target(store, text)
    try:
        return Image.open(store, target.target, platform=platform)
    except PlatformNotFound as error:
        raise error.about(f'image "{text}"') from None


def why_missing(store: Store, text: str, *, platform: Platform | None) -> LaminaError | None:
    """The error of kind NOT_FOUND if no image of that name or id (and platform) is here."""
    try:
        with store.lease("look"):
            find_image(store, text, platform)
    except LaminaError as error:
        if error.kind is not Kind.NOT_FOUND:
            raise
        return error
    return None


def preferred_image(store: Store, text: str, platform: Platform, *, exact: bool = False) -> Image:
    """The image that `text` names, for `platform` if there is one, else the first there is.

    With `exact` another platform's is an error. Raises as `find_image`.
    """
    if exact:
        return find_image(store, text, platform)
    return open_preferred(store, find_target(store, text).target, platform)


def open_preferred(store: Store, target: Descriptor, platform: Platform) -> Image:
    """The image for `platform`, or the first there is if none is for it."""
    try:
        return Image.open(store, target, platform=platform)
    except PlatformNotFound:
        return Image.open(store, target)


def find_target(store: Store, text: str) -> Found:
    """What `text` means, as `find_image`; an index is not looked into."""
    digits = text.removeprefix("sha256:")
    is_full_id = is_image_id(text) and len(digits) == HEX_LENGTH["sha256"]
    if not is_full_id:
        found = _by_name(store, text)
        if found is not None:
            return found
    if is_image_id(text):
        found = _by_id(store, digits)
        if found is not None:
            return found
    raise ImageNotFound(f'image "{text}" not found', hint=HINT)


def _by_name(store: Store, text: str) -> Found | None:
    reference = Reference.parse(text)
    name = str(reference.with_default_tag() if reference.digest is None else _by_digest(reference))
    named = store.metadata.get_name(name)
    if named is not None or reference.digest is None:
        return Found(named.target, named.name) if named is not None else None
    for image in store.metadata.list_names():
        if is_dangling(image.name) or Reference.parse(image.name).name != reference.name:
            continue
        target = _with_digest(store, image.target, reference.digest)
        if target is not None:
            return Found(target, image.name)
    return None


def _by_digest(reference: Reference) -> Reference:
    """The name under which a pull by digest keeps an image."""
    return replace(reference, tag="")


def _with_digest(store: Store, target: Descriptor, digest: Digest) -> Descriptor | None:
    """`target`, or a manifest of the index it is, that has this digest."""
    if target.digest == digest:
        return target
    if target.media_type in mediatype.INDEXES:
        raw = store.content.read(target.digest, limit=MAX_DOCUMENT)
        for entry in Index.parse(raw, media_type=target.media_type).manifests:
            if entry.digest == digest:
                return entry
    return None


def _by_id(store: Store, digits: str) -> Found | None:
    from lamina.image.ids import image_ids

    matches: dict[Digest, Descriptor] = {}
    names = sorted(store.metadata.list_names(), key=lambda named: is_dangling(named.name))
    for image in names:
        if image.target.digest.hex == digits:
            return Found(image.target)
        for id, manifest in image_ids(store, image.target):
            if id.hex.startswith(digits):
                matches.setdefault(id, manifest)
    if len(matches) > 1:
        shown = ", ".join(sorted(id.short() for id in matches))
        raise AmbiguousImage(f'image id "{digits}" is ambiguous: {shown}')
    return next((Found(target, id=id) for id, target in matches.items()), None)
