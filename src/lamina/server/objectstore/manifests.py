# SPDX-License-Identifier: Apache-2.0
"""Manifests, tags and referrers: one document a repository (the `Manifests` port).

    {"generation": 3, "tags": {"<tag>": ["<digest>", updated]},
     "manifests": {"<digest>": {"raw": "<nonce>", "type", "subject", "artifact", "annotations",
                                "size", "depth", "pushed", "needs": ["<digest>", ...]}}}

A push reads the document, sees that the repository's links are there and young, writes the
manifest's bytes under a new name, and swaps the document. A collector that wants to remove links or
bytes swaps first (`generation`), so a push that looked before loses its swap and looks again.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict
from contextlib import suppress

from lamina.errors import Kind, LaminaError
from lamina.server.manifeststore import MAX_NESTING, unknown
from lamina.server.objectstore.documents import EMPTY
from lamina.server.ports import NewManifest, Referrer, StoredManifest
from lamina.server.wire import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor

    from lamina.server.objectstore.blobs import BucketBlobs
    from lamina.server.objectstore.bucket import Bucket
    from lamina.server.objectstore.documents import Document, Documents
    from lamina.spec.digest import Digest

REPOSITORIES = "repositories"
BYTES = "documents"
_END = "!"  # sorts before everything that a name may contain: keys are in the order of names
_CACHED = 1000  # manifests whose bytes are kept in memory, of at most _CACHED_SIZE bytes each
_CACHED_SIZE = 32 << 10


def state_key(repository: str) -> str:
    """The key of the repository's document."""
    return f"{REPOSITORIES}/{repository}{_END}"


def bytes_prefix(repository: str) -> str:
    """Where the bytes of the repository's manifests are."""
    return f"{BYTES}/{repository}{_END}"


def bytes_key(repository: str, digest: str, nonce: str) -> str:
    """The key of a manifest's bytes."""
    return f"{bytes_prefix(repository)}/{digest.replace(':', '-')}-{nonce}"


def is_empty(state: Document) -> bool:
    """Whether a repository's document says nothing but that there was one."""
    return not state.get("manifests")


class BucketManifests:
    """The `Manifests` port on documents in a bucket."""

    def __init__(
        self,
        bucket: Bucket,
        states: Documents,
        blobs: BucketBlobs,
        *,
        clock: Callable[[], float],
        pool: Executor,
    ) -> None:
        self._bucket = bucket
        self._states = states
        self._blobs = blobs
        self._clock = clock
        self._pool = pool
        self._guard = threading.Lock()
        self._cache: OrderedDict[str, bytes] = OrderedDict()

    def find(self, repository: str, *, tag: str = "", digest: str = "") -> StoredManifest | None:
        for _ in range(3):
            state = self._states.read(state_key(repository))
            wanted = digest or state.get("tags", {}).get(tag, [""])[0]
            entry = state.get("manifests", {}).get(wanted)
            if entry is None:
                return None
            raw = self._bytes(repository, wanted, entry["raw"])
            if raw is not None:
                return StoredManifest(wanted, entry["type"], raw)
        raise LaminaError(f"{repository}@{wanted}: the bytes are gone", kind=Kind.UNAVAILABLE)

    def put(
        self,
        repository: str,
        manifest: NewManifest,
        *,
        tags: Sequence[str] = (),
        user: str = "",
    ) -> None:
        digest = str(manifest.digest)
        written: list[str] = []

        def change(state: Document) -> None:
            known = state.setdefault("manifests", {})
            self._check_blobs(repository, known, manifest.blobs)
            depth = 1 + _depth(known, manifest.manifests)
            if depth > MAX_NESTING:
                raise Refusal("MANIFEST_INVALID", f"indexes are nested deeper than {MAX_NESTING}")
            now = self._clock()
            if digest in known:
                nonce = known[digest]["raw"]
            else:
                nonce = secrets.token_hex(8)
                written.append(bytes_key(repository, digest, nonce))
                self._bucket.put(written[-1], manifest.raw)
            needs = {str(child) for child in (*manifest.blobs, *manifest.manifests)}
            known[digest] = {
                "raw": nonce,
                "type": manifest.media_type,
                "subject": manifest.subject,
                "artifact": manifest.artifact_type,
                "annotations": dict(manifest.annotations),
                "size": len(manifest.raw),
                "depth": depth,
                "pushed": now,
                "needs": sorted(needs),
            }
            for tag in tags:
                state.setdefault("tags", {})[tag] = [digest, now]

        self._states.update(state_key(repository), change)
        if len(written) > 1:  # bytes that lost a race; after a failure the collector removes them
            with suppress(LaminaError):
                self._bucket.delete(written[:-1])

    def remove(self, repository: str, digest: Digest, *, user: str = "") -> bool:
        name = str(digest)
        return self._states.update(
            state_key(repository), lambda state: bool(remove_manifests(state, [name]))
        )

    def untag(self, repository: str, tag: str, *, user: str = "") -> bool:
        def change(state: Document) -> bool:
            return state.get("tags", {}).pop(tag, None) is not None

        return self._states.update(state_key(repository), change)

    def tags(self, repository: str, *, n: int, last: str) -> Sequence[str] | None:
        state = self._states.read(state_key(repository))
        if is_empty(state):
            return None
        after = (last.lower(), last)
        found = sorted((tag.lower(), tag) for tag in state.get("tags", {}))
        return [tag for folded, tag in found if (folded, tag) > after][:n]

    def referrers(
        self, repository: str, subject: Digest, *, n: int, last: str, artifact_type: str = ""
    ) -> Sequence[Referrer]:
        known = self._states.read(state_key(repository)).get("manifests", {})
        found = sorted(
            digest
            for digest, entry in known.items()
            if entry["subject"] == str(subject)
            and digest > last
            and artifact_type in {"", entry["artifact"]}
        )
        return [_referrer(digest, known[digest]) for digest in found[:n]]

    def repositories(self, *, n: int, last: str) -> Sequence[str]:
        found: list[str] = []
        if n <= 0:
            return found
        for name, empty, _ in self.states(after=last):
            if not empty:
                found.append(name)
                if len(found) == n:
                    break
        return found

    def states(self, *, after: str = "") -> Iterator[tuple[str, bool, str]]:
        """(repository, whether it holds no manifest, entity tag of its document) after a name."""
        start = state_key(after) if after else ""
        for entry in self._bucket.list(REPOSITORIES, after=start):
            name = entry.key.removeprefix(f"{REPOSITORIES}/").removesuffix(_END)
            yield name, entry.size <= EMPTY, entry.tag

    def _bytes(self, repository: str, digest: str, nonce: str) -> bytes | None:
        """The manifest's bytes; None if they were removed since the document was read.

        Raises:
            LaminaError: kind UNAVAILABLE if they are damaged.
        """
        key = bytes_key(repository, digest, nonce)
        with self._guard:
            raw = self._cache.get(key)
            if raw is not None:
                self._cache.move_to_end(key)
                return raw
        found = self._bucket.get(key)
        if found is None:
            return None
        algorithm, _, hex_digits = digest.partition(":")
        if hashlib.new(algorithm, found.raw).hexdigest() != hex_digits:
            raise LaminaError(f"{repository}@{digest} is damaged", kind=Kind.UNAVAILABLE)
        if len(found.raw) <= _CACHED_SIZE:
            with self._guard:
                self._cache[key] = found.raw
                if len(self._cache) > _CACHED:
                    self._cache.popitem(last=False)
        return found.raw

    def _check_blobs(self, repository: str, known: Document, digests: Sequence[Digest]) -> None:
        wanted = [digest for digest in dict.fromkeys(digests) if str(digest) not in known]
        held = self._pool.map(lambda digest: self._blobs.renew(repository, digest), wanted)
        for digest, is_held in zip(wanted, held, strict=True):
            if not is_held:
                raise unknown(digest)


def remove_manifests(state: Document, digests: Sequence[str]) -> int:
    """Take the manifests and their tags out of the document; how many there were."""
    known = state.get("manifests", {})
    gone = {digest for digest in digests if known.pop(digest, None) is not None}
    tags = state.get("tags", {})
    for tag in [tag for tag, (digest, _) in tags.items() if digest in gone]:
        del tags[tag]
    return len(gone)


def needed(state: Document) -> set[str]:
    """Digests of blobs and manifests that a manifest of the repository needs."""
    return {child for entry in state.get("manifests", {}).values() for child in entry["needs"]}


def _depth(known: Document, digests: Sequence[Digest]) -> int:
    for digest in digests:
        if str(digest) not in known:
            raise unknown(digest)
    return max((int(known[str(digest)]["depth"]) for digest in digests), default=0)


def _referrer(digest: str, entry: Document) -> Referrer:
    return Referrer(
        digest,
        entry["type"],
        entry["size"],
        entry["artifact"],
        tuple(entry["annotations"].items()),
    )
