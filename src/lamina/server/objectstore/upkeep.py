# SPDX-License-Identifier: Apache-2.0
"""Collection and scrubbing of a bucket, beside pushes of any number of processes (ADR 90).

Why nothing goes that a push needs, whatever stops or dies when:
- A link goes by compare and swap of the document that has its time, and only if that is older than
  the grace period; before, the repository's document got a new `generation`. A push that saw the
  link before that loses its swap and looks again; one that sees it afterwards renews it, or finds
  it young, or gone. (Clocks of servers may differ by half of the grace period.)
- Bytes go if no document refers to them, and no document can begin to: names are never used twice,
  and a record is made of pieces whose upload has a document. The order of the three listings
  matters: objects, then uploads, then records.

One process collects at a time, so that others save the work; nothing depends on that.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import defaultdict
from contextlib import contextmanager

from lamina.errors import LaminaError
from lamina.server.objectstore.blobs import INDEX, shelf
from lamina.server.objectstore.manifests import (
    BYTES,
    bytes_key,
    needed,
    remove_manifests,
    state_key,
)
from lamina.server.objectstore.uploads import DATA, UPLOADS
from lamina.server.ports import Collected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lamina.server.objectstore.bucket import Bucket
    from lamina.server.objectstore.documents import Document, Documents
    from lamina.server.objectstore.manifests import BucketManifests
    from lamina.server.objectstore.uploads import BucketUploads

_LOCK = "collector"
_TURN = 300.0  # seconds after which a collector that says nothing is taken for dead


class BucketUpkeep:
    """The `Upkeep` port."""

    def __init__(
        self,
        bucket: Bucket,
        *,
        index: Documents,
        states: Documents,
        uploads: BucketUploads,
        manifests: BucketManifests,
        clock: Callable[[], float],
        grace: float,
        upload_expiry: float,
    ) -> None:
        self._bucket = bucket
        self._index = index
        self._states = states
        self._uploads = uploads
        self._manifests = manifests
        self._clock = clock
        self._grace = grace
        self._upload_expiry = upload_expiry
        self._name = secrets.token_hex(8)

    def collect(self, *, untagged_after: float | None = None, dry_run: bool = False) -> Collected:
        """As the port says; nothing if another process collects now."""
        if dry_run:
            return self._collect(untagged_after, dry_run=True)
        with self._turn() as mine:
            return self._collect(untagged_after, dry_run=False) if mine else Collected()

    def _collect(self, untagged_after: float | None, *, dry_run: bool) -> Collected:
        uploads = list(self._uploads.expired(self._clock() - self._upload_expiry))
        if not dry_run:
            for id in uploads:
                self._uploads.discard(id)
        manifests = 0
        if untagged_after is not None:
            manifests = self._collect_untagged(untagged_after, dry_run=dry_run)
        self._say_alive(dry_run=dry_run)
        links = self._collect_links(dry_run=dry_run)
        self._say_alive(dry_run=dry_run)
        blobs, size = self._collect_records(dry_run=dry_run)
        if not dry_run:
            self._say_alive(dry_run=False)
            self._remove_bytes()
            self._remove_manifest_bytes()
        return Collected(len(uploads), manifests, links, blobs, size)

    def scrub(self, *, cancelled: Callable[[], bool] = lambda: False) -> Sequence[str]:
        damaged: list[str] = []
        for algorithm, hex_digits, record in self._records():
            if cancelled():
                return damaged
            digest = f"{algorithm}:{hex_digits}"
            found = self._hash(record["key"], record["size"], algorithm)
            now = self._index.read(shelf(digest)).get(hex_digits, {})
            if found != hex_digits and now.get("key") == record["key"]:
                damaged.append(digest)
        for repository, _, tag in self._manifests.states():
            state = self._states.read_if(state_key(repository), tag)
            for digest, entry in state.get("manifests", {}).items():
                if cancelled():
                    return damaged
                algorithm, _, hex_digits = digest.partition(":")
                key = bytes_key(repository, digest, entry["raw"])
                if self._hash(key, entry["size"], algorithm) == hex_digits:
                    continue
                if digest in self._states.read(state_key(repository)).get("manifests", {}):
                    damaged.append(digest)
        return damaged

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        """A block in which this process collects, if it says True."""
        if not self._take(self._clock() + _TURN):
            yield False
            return
        try:
            yield True
        finally:
            self._take(0.0)

    def _say_alive(self, *, dry_run: bool) -> None:
        if not dry_run:
            self._take(self._clock() + _TURN)

    def _take(self, until: float) -> bool:
        nonce = secrets.token_hex(8)

        def change(document: Document) -> bool:
            others = document.get("holder") != self._name
            if others and document.get("until", 0.0) > self._clock():
                return False
            document.update(holder=self._name, until=until, nonce=nonce)
            return True

        return self._states.update(_LOCK, change)

    def _collect_untagged(self, after: float, *, dry_run: bool) -> int:
        before = self._clock() - after
        removed = 0
        for repository, empty, tag in list(self._manifests.states()):
            if empty:
                continue
            found = _untagged(self._states.read_if(state_key(repository), tag), before)
            if found and not dry_run:
                removed += self._states.update(
                    state_key(repository),
                    lambda state: remove_manifests(state, _untagged(state, before)),
                )
            elif found:
                removed += len(found)
        return removed

    def _collect_links(self, *, dry_run: bool) -> int:
        epoch = self._clock() - self._grace
        old: dict[str, list[str]] = defaultdict(list)
        for algorithm, hex_digits, record in self._records():
            for repository, renewed in record["in"].items():
                if renewed < epoch:
                    old[repository].append(f"{algorithm}:{hex_digits}")
        removed = 0
        for repository, digests in old.items():
            key = state_key(repository)
            keep = needed(self._states.read(key))
            unused = [digest for digest in digests if digest not in keep]
            if dry_run or not unused:
                removed += len(unused)
                continue

            def begin(state: Document) -> set[str]:
                """A new generation: pushes that have looked at links already look again."""
                state["generation"] = state.get("generation", 0) + 1
                return needed(state)

            keep = self._states.update(key, begin)
            for digest in unused:
                if digest not in keep:
                    removed += self._unlink(repository, digest, epoch)
        return removed

    def _unlink(self, repository: str, digest: str, epoch: float) -> int:
        def change(document: Document) -> int:
            holders = document.get(digest.partition(":")[2], {}).get("in", {})
            if holders.get(repository, epoch) >= epoch:
                return 0
            del holders[repository]
            return 1

        return self._index.update(shelf(digest), change)

    def _collect_records(self, *, dry_run: bool) -> tuple[int, int]:
        """Remove records of blobs that nobody holds; their bytes follow in `_remove_bytes`."""
        count = freed = 0
        for shelf_key, unheld in self._unheld():
            if dry_run:
                count, freed = count + len(unheld), freed + sum(unheld.values())
                continue

            def change(document: Document, names: Sequence[str] = tuple(unheld)) -> list[int]:
                return [
                    document.pop(name)["size"]
                    for name in names
                    if name in document and not document[name]["in"]
                ]

            sizes = self._index.update(shelf_key, change)
            count, freed = count + len(sizes), freed + sum(sizes)
        return count, freed

    def _unheld(self) -> list[tuple[str, dict[str, int]]]:
        found: dict[str, dict[str, int]] = defaultdict(dict)
        for algorithm, hex_digits, record in self._records():
            if not record["in"]:
                found[shelf(f"{algorithm}:{hex_digits}")][hex_digits] = record["size"]
        return list(found.items())

    def _remove_bytes(self) -> None:
        """Remove pieces and blobs that no document refers to. The order is the proof."""
        objects = [entry.key for entry in self._bucket.list(DATA)]
        uploads = {entry.key.removeprefix(f"{UPLOADS}/") for entry in self._bucket.list(UPLOADS)}
        kept = {record["key"] for _, _, record in self._records()}
        self._bucket.delete(
            [key for key in objects if key not in kept and key.split("/")[1] not in uploads]
        )

    def _remove_manifest_bytes(self) -> None:
        """Remove manifests' bytes that no repository refers to."""
        found: dict[str, list[str]] = defaultdict(list)
        for entry in self._bucket.list(BYTES):
            repository = entry.key.removeprefix(f"{BYTES}/").rpartition("!/")[0]
            found[repository].append(entry.key)
        for repository, keys in found.items():
            key = state_key(repository)
            if not set(keys) - _bytes_of(repository, self._states.read(key)):
                continue

            def begin(state: Document, repository: str = repository) -> set[str]:
                state["generation"] = state.get("generation", 0) + 1
                return _bytes_of(repository, state)

            kept = self._states.update(key, begin)
            self._bucket.delete([key for key in keys if key not in kept])

    def _records(self) -> Iterator[tuple[str, str, Document]]:
        """(algorithm, hex digits, record) of every blob."""
        for entry in list(self._bucket.list(INDEX)):
            algorithm = entry.key.split("/")[1]
            for hex_digits, record in self._index.read_if(entry.key, entry.tag).items():
                yield algorithm, hex_digits, record

    def _hash(self, key: str, size: int, algorithm: str) -> str:
        hasher = hashlib.new(algorithm)
        try:
            for piece in self._bucket.read(key, offset=0, length=size):
                hasher.update(piece)
        except LaminaError:  # gone, or it cannot be read
            return ""
        return hasher.hexdigest()


def _bytes_of(repository: str, state: Document) -> set[str]:
    return {
        bytes_key(repository, digest, entry["raw"])
        for digest, entry in state.get("manifests", {}).items()
    }


def _untagged(state: Document, before: float) -> list[str]:
    """Digests of manifests pushed before, without a tag, an index or a subject."""
    known = state.get("manifests", {})
    kept = needed(state) | {digest for digest, _ in state.get("tags", {}).values()}
    return [
        digest
        for digest, entry in known.items()
        if entry["pushed"] < before and digest not in kept and entry["subject"] not in known
    ]
