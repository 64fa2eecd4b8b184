# SPDX-License-Identifier: Apache-2.0
"""Removing images: what `rmi` and `image prune` may take, and what goes with it.

Whether an image may go is a question about its id: other names that have it, containers that use it.
What is removed are stored names, each only while it points where it did when that was decided; so a
dangling manifest goes without the image of the same id that has a name, and a build beside a prune
keeps what it names.
"""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.image.ids import Held, held_names, ids_of
from lamina.image.names import dangling_name
from lamina.image.resolve import find_target
from lamina.spec.reference import Reference
from lamina.start.record import Record
from lamina.store.eventlog import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from lamina.image.resolve import Found
    from lamina.spec.digest import Digest
    from lamina.store.ports import Store

CONTAINER = "container"  # the kind under which containers are documents


class Removal(Record):
    """A line of `rmi`: `verb` is Untagged or Deleted."""

    verb: str
    subject: str


def remove_image(store: Store, text: str, *, force: bool) -> list[Removal]:
    """Remove the name `text`, or every name of the image with that id; what happened, in order.

    The bytes go with the next `collect`. An image that a container uses keeps its bytes.

    Raises:
        ImageNotFound, AmbiguousImage.
        LaminaError: kind CONFLICT: a container uses the image, or its id was given and it has
            several names; `force` removes names anyway.
    """
    with store.lease("rmi"):
        found = find_target(store, text)
        held = held_names(store)
        doomed = _meant(found, held)
        subject = _subject(found)
        if not found.name and not force and not _has_one_name(doomed):
            raise LaminaError(
                f"conflict: unable to delete {subject} (must be forced) - "
                "image is referenced in multiple repositories",
                kind=Kind.CONFLICT,
            )
        doomed, lost = _with_spares(doomed, held)
        used = {user.image_id: user for user in image_users(store)}
        busy = [str(id) for id in lost if str(id) in used]
        if busy and not force:
            raise _in_use(subject, used[busy[0]], by_name=bool(found.name))
        if busy:
            doomed = _kept_unnamed(store, doomed, busy)
        return forget(store, doomed, held, kept=busy)


def _meant(found: Found, held: Sequence[Held]) -> list[Held]:
    """The names to remove: of an id those that people gave, if there are any."""
    if found.name:
        return [each for each in held if each.named.name == found.name]
    if found.id is None:
        return [each for each in held if each.named.target.digest == found.target.digest]
    having = [each for each in held if found.id in each.ids]
    return [each for each in having if not each.is_dangling] or having


def _subject(found: Found) -> str:
    if found.name:
        return f'"{Reference.parse(found.name).familiar()}"'
    return (found.id or found.target.digest).short()


def _has_one_name(doomed: Sequence[Held]) -> bool:
    """At most one tag, and digests of the same repository, as in Docker."""
    references = [Reference.parse(each.named.name) for each in doomed if not each.is_dangling]
    return (
        sum(bool(reference.tag) for reference in references) <= 1
        and len({reference.name for reference in references}) <= 1
    )


def _with_spares(doomed: Sequence[Held], held: Sequence[Held]) -> tuple[list[Held], list[Digest]]:
    """Also the dangling manifests that hold nothing but what is lost or has a name; and the ids of
    the images that are lost.
    """
    names = {each.named.name for each in doomed}
    rest = [each for each in held if each.named.name not in names]
    named = ids_of([each for each in rest if not each.is_dangling])
    going = ids_of(doomed)
    spare = [
        each
        for each in rest
        if each.is_dangling
        and each.is_spare(going | named)
        and any(id in going and id not in named for id in each.ids)
    ]
    return [*doomed, *spare], _lost([*doomed, *spare], held)


def _lost(doomed: Sequence[Held], held: Sequence[Held]) -> list[Digest]:
    """The ids that no other name has."""
    names = {each.named.name for each in doomed}
    rest = ids_of([each for each in held if each.named.name not in names])
    return list(dict.fromkeys(id for each in doomed for id in each.ids if id not in rest))


def _in_use(subject: str, user: User, *, by_name: bool) -> LaminaError:
    if by_name:
        text = (
            f"unable to remove repository reference {subject} (must force) - "
            f"container {user.container} is using its referenced image "
            f"{user.image_id.removeprefix('sha256:')[:12]}"
        )
    else:
        text = (
            f"unable to delete {subject} (must be forced) - "
            f"image is being used by container {user.container}"
        )
    return LaminaError(f"conflict: {text}", kind=Kind.CONFLICT)


def _kept_unnamed(store: Store, doomed: Sequence[Held], busy: Collection[str]) -> list[Held]:
    """Keep what a container uses without its name; the names that are to go."""
    kept = set()
    for each in doomed:
        if any(str(id) in busy for id in each.ids):
            kept.add(dangling_name(each.named.target))
            store.metadata.set_names([dangling_name(each.named.target)], each.named.target)
    return [each for each in doomed if each.named.name not in kept]


def forget(
    store: Store, doomed: Sequence[Held], held: Sequence[Held], *, kept: Collection[str] = ()
) -> list[Removal]:
    """Remove these of all `held` names, unless one points elsewhere by now; what happened. The image
    ids in `kept` are not deleted. Of a manifest whose image is not lost with it, its digest is told.
    """
    gone = set(store.metadata.delete_names([each.named for each in doomed]))
    removed = [each for each in doomed if each.named.name in gone]
    lost = [str(id) for id in _lost(removed, held) if str(id) not in kept]
    untagged = [each for each in removed if not each.is_dangling]
    targets = {each.named.target.digest for each in held if each not in removed}
    packings = [
        str(each.named.target.digest)
        for each in removed
        if not any(str(id) in lost for id in each.ids)
        and (each.is_dangling or not each.ids)
        and each.named.target.digest not in targets
    ]
    _tell_of_removal(store, untagged, [*lost, *packings])
    return [
        *(Removal("Untagged", Reference.parse(each.named.name).familiar()) for each in untagged),
        *(Removal("Deleted", text) for text in dict.fromkeys([*lost, *packings])),
    ]


def _tell_of_removal(store: Store, untagged: Sequence[Held], deleted: Sequence[str]) -> None:
    for each in untagged:
        id = str(each.ids[0] if each.ids else each.named.target.digest)
        note(store.root, "image", "untag", id, {"name": id})
    for id in dict.fromkeys(deleted):
        note(store.root, "image", "delete", id, {"name": id})


class User(Record):
    """A container (its short id) that uses an image."""

    container: str
    image_id: str


def image_users(store: Store) -> list[User]:
    """Every container that is known to use an image."""
    import json

    users = []
    for document in store.documents.list(CONTAINER):
        try:
            image_id = json.loads(document.body).get("image_id")
        except (ValueError, AttributeError):
            continue  # not a container's record: it uses nothing that could be told
        if isinstance(image_id, str) and image_id:
            users.append(User(document.id[:12], image_id))
    return users


def users_of(held: Held, users: Sequence[User], everything: Sequence[Held]) -> list[User]:
    """The containers that use an image which the name keeps and no other name has more right to: a
    dangling manifest of a named image has none. Of a damaged one every container may be a user whose
    image is nowhere else.
    """
    named = ids_of([each for each in everything if not each.is_dangling])
    if held.is_dangling and held.is_spare(named):
        return []
    own = {str(id) for id in held.ids}
    known = {str(id) for id in ids_of(everything)}
    return [
        user
        for user in users
        if user.image_id in own or (not held.is_whole and user.image_id not in known)
    ]
