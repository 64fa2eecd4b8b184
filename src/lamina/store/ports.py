# SPDX-License-Identifier: Apache-2.0
"""What a store offers: the contracts that its users and its adapters keep.

A *lease* is held by every process that writes; everything made under it is safe from GC until the
lease is released, and things reachable from names, containers or cache records are safe for good.
Every method may be called from any thread, and by many processes on one root.
"""

from __future__ import annotations

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from typing import IO, Protocol, Self

    from lamina.spec.descriptor import Descriptor
    from lamina.spec.digest import ChainID, DiffID, Digest, Stack
    from lamina.system.overlay import LayerImage, OverlayMount
    from lamina.tasks import CancelToken

    LayerForm = str  # auto, erofs, directories
else:
    Protocol = object


class BlobInfo(Record):
    """A committed blob: its size in bytes and when it was committed (POSIX seconds).

    `is_own`: this process hashed these bytes as it wrote them, so nobody need hash them again.
    """

    digest: Digest
    size: int
    created: float
    is_own: bool = False


class Ingest(Protocol):
    """A blob being written: invisible until `commit`. A context manager: leaving without commit
    keeps what was written (it can be resumed) unless `abort` was called.
    """

    offset: int  # bytes written so far, those of an earlier process included

    def write(self, data: bytes) -> None:
        """Append `data`. Raises LaminaError of kind EXHAUSTED when the disk is full."""

    def reader(self) -> IO[bytes]:
        """A file of its own on what is written, now and later; it stays readable after commit and
        abort. The caller closes it.
        """

    def digest(self) -> Digest:
        """The digest of what is written so far, of the algorithm that is expected or sha256."""

    def commit(self, *, digest: Digest | None = None, size: int | None = None) -> Digest:
        """Verify, flush and publish the blob under its digest; a blob that exists is kept.

        Raises:
            LaminaError: kind INTEGRITY if `digest` or `size` differ; the ingest is then removed.
        """

    def abort(self) -> None:
        """Remove what was written. Idempotent."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...


class ContentStore(Protocol):
    """Blobs by digest, `blobs/<algorithm>/<hex>` of an OCI image layout."""

    def open(self, digest: Digest, *, offset: int = 0) -> IO[bytes]:
        """The blob for reading from `offset`; the caller closes it. Raises kind NOT_FOUND."""

    def read(self, digest: Digest, *, limit: int) -> bytes:
        """All bytes of a small blob, *verified* against the digest.

        Raises: kind NOT_FOUND, INTEGRITY, or INVALID if larger than `limit` bytes.
        """

    def exists(self, digest: Digest) -> bool:
        """Whether the blob is committed here."""

    def info(self, digest: Digest) -> BlobInfo:
        """Size and age. Raises kind NOT_FOUND."""

    def ingest(self, ref: str, *, expected: Descriptor | None = None) -> Ingest:
        """Begin or resume writing under `ref` (any text; hashed into a file name).

        One process at a time holds an ingest (flock): a second one waits. With `expected`, commit
        checks against it.
        """

    def add(self, data: bytes) -> Digest:
        """Commit a small blob (a config, a manifest) and return its sha256 digest."""

    def walk(self) -> Iterator[BlobInfo]:
        """Every committed blob, in no order."""

    def delete(self, digest: Digest) -> None:
        """Remove a blob; no error if it is not there."""


class SnapshotInfo(Record):
    """A snapshot. `name` is the key (active) or the chainID as text (committed)."""

    name: str
    committed: bool
    parent: ChainID | None
    created: float
    size: int | None = None  # bytes of its own layer, if known


class Snapshotter(Protocol):
    """Filesystem trees in the store, stacked by overlayfs: each layer a directory or an image.

    Committed snapshots are named by chainID and never change. Active ones have a key chosen by the
    caller (unique; a container id, a build vertex and pid). Layers are never merged on disk.
    """

    def prepare(self, key: str, parent: ChainID | None) -> OverlayMount:
        """A new active snapshot on `parent`, writable. Raises kind CONFLICT if the key exists,
        NOT_FOUND if the parent does not.
        """

    def mount_of(self, key: str) -> OverlayMount:
        """The mount of an existing active snapshot (to mount it again). Raises kind NOT_FOUND."""

    def view(self, parent: ChainID | None) -> OverlayMount:
        """A read-only mount of a committed snapshot (None: an empty directory). Nothing to free."""

    def layer_dir(self, name: str) -> str:
        """The directory that holds this snapshot's own layer in overlay form (whiteouts as 0:0
        character devices, opaque directories by xattr): the upper directory while active. Raises
        kind UNSUPPORTED if the layer is an image.
        """

    def layer(self, name: str) -> str | LayerImage:
        """The same of any snapshot, for `system.mounts.opened_layers`."""

    def image_for(self, key: str) -> str | None:
        """Where to write the layer of the active snapshot `key` as an image, a new file; None if
        layers are directories in this store. `commit` takes the image if it is there and then its
        upper directory says only what attributes the root has. Raises kind NOT_FOUND.
        """

    def commit(self, chain: ChainID, key: str) -> None:
        """Turn the active snapshot `key` (unmounted) into the committed `chain`. If `chain` exists
        already the active one is dropped. Survives kill -9 when it returns; a power loss before the
        next `set_names` (which flushes) may take the whole of it, never a part.
        """

    def exists(self, chain: ChainID) -> bool:
        """Whether `chain` is committed here."""

    def remove(self, name: str) -> None:
        """Remove an active or committed snapshot. Raises kind CONFLICT if one stands on it."""

    def walk(self) -> Iterator[SnapshotInfo]:
        """Every snapshot."""


class LayerRecord(Record):
    """What is known of a layer: uncompressed size in bytes and the blobs that hold it.

    A blob's descriptor has an OCI layer media type; several compressions may exist.
    """

    diff_id: DiffID
    size: int
    blobs: tuple[Descriptor, ...] = ()


class CacheRecord(Record):
    """A stored (key -> result): `result` is the whole stack of layers after the vertex.

    `tree` is the key as JSON text, kept to explain a miss; `name` what people called the step.
    """

    key: Digest
    result: Stack
    tree: str
    name: str
    created: float


class EarlierKey(Record):
    """A cache record as an explanation sees it: `tree` with what was noted beside the key."""

    key: str
    name: str
    tree: str
    created: float


class KeyHistory(Protocol):
    """What the cache held before: for explanations only, so nothing here counts as a use."""

    def names(self, stage: str, *, before: float) -> list[tuple[str, str]]:
        """(name, key) of the newest records of a stage's steps made before this time, newest first.

        An empty stage stands for steps whose names have none.
        """

    def instructions(self, text: str, *, before: float) -> list[str]:
        """Keys of records of any stage whose instruction is this, newest first. A slow search."""

    def trees(self, keys: Sequence[str], *, before: float | None = None) -> list[EarlierKey]:
        """The records of these keys that are there (and made before this time), in any order."""

    def of_results(self, results: Sequence[Stack]) -> list[CacheRecord]:
        """Every record of one of these results. A slow search."""

    def was_pruned(self, key: str) -> bool:
        """Whether a record of this key was removed to free space, as far as it is remembered."""


class NamedImage(Record):
    """A name (normalised reference text) and the manifest or index it points to."""

    name: str
    target: Descriptor
    updated: float


class Metadata(Protocol):
    """Names, layers, cache records, stat cache and documents: short sqlite transactions.

    Rebuildable from blobs where it can be; a damaged cache row is a miss, never an error.
    """

    def set_names(self, names: Sequence[str], target: Descriptor) -> None:
        """Point every name to `target`, all or none; durable, and `index.json` follows.

        Everything committed before is flushed first. Raises kind NOT_FOUND if the blob of `target`
        is not here, EXHAUSTED if the disk is full (no name has changed then).
        """

    def get_name(self, name: str) -> NamedImage | None:
        """What the name points to."""

    def list_names(self) -> list[NamedImage]:
        """All names, sorted."""

    def delete_names(self, names: Sequence[str | NamedImage]) -> list[str]:
        """Forget names; no error for one that is not there. Of a `NamedImage` the name, if it still
        points where it did: another process may have moved it. The names that were forgotten.
        """

    def get_layer(self, diff_id: DiffID) -> LayerRecord | None:
        """The layer's record."""

    def put_layer(self, diff_id: DiffID, size: int, blob: Descriptor | None = None) -> None:
        """Record a layer, and a blob that holds it; earlier blobs are kept. Size 0: unknown."""

    def get_cache(self, keys: Sequence[Digest]) -> CacheRecord | None:
        """The record of the first key that has one."""

    def put_cache(self, records: Sequence[CacheRecord]) -> None:
        """Store records; a newer one replaces an older of the same key."""

    def get_stat(self, context: str) -> bytes | None:
        """The stat cache blob of a build context (its absolute path)."""

    def put_stat(self, context: str, blob: bytes) -> None:
        """Replace the stat cache blob of a build context."""


class Document(Record):
    """A small record of an owner above the store: `body` is JSON text, `kind` names the owner.

    (kind, id) and (kind, name) are unique. Containers and network addresses are kept so.
    If the body is an object with a list `pins`, each text in it that is a digest (of a manifest,
    config or other blob), a chainID or a snapshot key keeps that, and what it needs, from GC. A
    `container` may also name them in the fields `chain` and `snapshot`. The active snapshot whose
    key is the document's id is always kept.
    """

    kind: str
    id: str
    name: str
    body: str
    created: float


class Documents(Protocol):
    """A keyed table for rooms above the store (containers, addresses, build records)."""

    def insert(self, document: Document) -> None:
        """Add it. Raises kind CONFLICT, naming the id or the name that exists."""

    def update(self, kind: str, id: str, body: str) -> None:
        """Replace the body. Raises kind NOT_FOUND."""

    def rename(self, kind: str, id: str, name: str) -> None:
        """Replace the name. Raises kind CONFLICT or NOT_FOUND."""

    def get(self, kind: str, id: str) -> Document | None:
        """By full id."""

    def find(self, kind: str, text: str) -> list[Document]:
        """Exact name first; else exact id; else every id that starts with `text`."""

    def list(self, kind: str) -> list[Document]:
        """All of a kind, oldest first."""

    def delete(self, kind: str, id: str) -> None:
        """Remove it; no error if it is not there."""


class Store(Protocol):
    """One root directory (`$LAMINA_ROOT`); `lamina.store.open_store(root)` gives it."""

    @property
    def root(self) -> str:
        """The absolute path of the root directory."""

    @property
    def content(self) -> ContentStore: ...
    @property
    def snapshots(self) -> Snapshotter: ...
    @property
    def metadata(self) -> Metadata: ...
    @property
    def documents(self) -> Documents: ...
    @property
    def key_history(self) -> KeyHistory: ...

    def lease(self, purpose: str) -> AbstractContextManager[object]:
        """Hold a lease (pid + start time) and the store lock shared: GC leaves alone what was made
        or used while it is held. Every command that writes or reads layers holds one.
        """

    def lock(
        self, name: str, *, cancel: CancelToken | None = None
    ) -> AbstractContextManager[object]:
        """Exclusive flock on `locks/<hash of name>`, for work that should be done once (unpacking
        a chain). Waits; reentrant in no way. Entering raises Cancelled once `cancel` is set.
        """

    def close(self) -> None:
        """Close the database. Idempotent."""
