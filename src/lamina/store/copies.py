# SPDX-License-Identifier: Apache-2.0
"""A second copy of every manifest, index and config that a name needs, in the database.

They are small and say what all the large blobs are for: with the copy GC goes on knowing what a
damaged one needs, and fsck can put it back. Written with the name, in its transaction; GC adds
those of images that were named without one, and removes what no name needs any more.
"""

from __future__ import annotations

from lamina.errors import LaminaError
from lamina.spec import mediatype
from lamina.spec.digest import Digest
from lamina.spec.document import MAX_DOCUMENT
from lamina.spec.manifest import MAX_ENTRIES, children

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lamina.spec.descriptor import Descriptor
    from lamina.store.content import Content
    from lamina.store.database import Database, Transaction

_PREFIX = "copy:"  # of keys in the table `state`
_ALL = "key >= 'copy:' AND key < 'copy;'"  # every key with the prefix, by the index


def read_documents(content: Content, target: Descriptor) -> dict[str, bytes]:
    """The documents behind a target that are here and sound, by digest."""
    found: dict[str, bytes] = {}
    todo = [target]
    for each in todo:  # grows while it is read
        if not is_document(each.media_type) or str(each.digest) in found or len(todo) > MAX_ENTRIES:
            continue
        if not content.exists(each.digest):
            continue  # of another platform
        try:
            raw = content.read(each.digest, limit=MAX_DOCUMENT)
            todo += children(each.media_type, raw)
        except LaminaError:
            continue
        found[str(each.digest)] = raw
    return found


def is_document(media_type: str) -> bool:
    """Whether it is one of the documents that are kept twice."""
    return media_type in mediatype.MANIFESTS | mediatype.INDEXES | mediatype.CONFIGS


def put_copies(transaction: Transaction, documents: Mapping[str, bytes]) -> None:
    """Keep these documents, by digest."""
    for digest, raw in documents.items():
        transaction.run("INSERT OR REPLACE INTO state VALUES (?, ?)", (_PREFIX + digest, raw))


def find_copy(database: Database, digest: Digest) -> bytes | None:
    """The copy of that digest, if there is a sound one."""
    rows = database.read("SELECT value FROM state WHERE key = ?", (f"{_PREFIX}{digest}",))
    return rows[0][0] if rows and _is_sound(str(digest), rows[0][0]) else None


def copied(database: Database) -> frozenset[str]:
    """The digests of all copies."""
    rows = database.read(f"SELECT key FROM state WHERE {_ALL}")  # noqa: S608  # a constant
    return frozenset(str(key).removeprefix(_PREFIX) for (key,) in rows)


def damaged_copies(database: Database) -> Iterator[str]:
    """The digests of copies that are not what they should be."""
    for digest in sorted(copied(database)):  # one at a time: together they may be large
        for (value,) in database.read("SELECT value FROM state WHERE key = ?", (_PREFIX + digest,)):
            if not _is_sound(digest, value):
                yield digest


def forget_copies(transaction: Transaction, digests: Iterable[str]) -> None:
    """Delete these copies."""
    for digest in digests:
        transaction.run("DELETE FROM state WHERE key = ?", (_PREFIX + digest,))


def _is_sound(digest: str, value: object) -> bool:
    if not isinstance(value, bytes):
        return False
    try:
        wanted = Digest.parse(digest)
    except LaminaError:
        return False
    return Digest.of(value, algorithm=wanted.algorithm) == wanted
