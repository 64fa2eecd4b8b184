# SPDX-License-Identifier: Apache-2.0
"""What a storage driver gives the registry. `lamina.testing.registry_suite` is their contract.

All methods are called from several threads at once and may block. A change that a method made is
on the disk when it returns; after a crash each is there as a whole or not at all. Names and digests
were checked by `routes`. A blob or a manifest is of a repository: what one repository holds is
never found through another, though equal bytes are kept once.
"""

from __future__ import annotations

from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Protocol

    from lamina.spec.digest import Digest
else:
    Protocol = object


class BlobFile(Record):
    """Where a blob's bytes are, for the HTTP server to send, and how many."""

    path: str
    size: int


class BlobStream(Record):
    """A blob that is no file of its own: how many bytes, and how they are had.

    `read(offset, length)` gives the bytes in pieces and may block; it raises LaminaError. `address`
    makes a URL that anybody may fetch the whole blob from for a short time; None: there is none.
    """

    size: int
    read: Callable[[int, int], Iterator[bytes]]
    address: Callable[[], str] | None = None


if TYPE_CHECKING:
    StoredBlob = BlobFile | BlobStream


class StoredManifest(Record):
    """A manifest as it was pushed."""

    digest: str
    media_type: str
    raw: bytes


class NewManifest(Record):
    """A manifest to store. `blobs` and `manifests` are the digests it needs in its repository."""

    digest: Digest
    media_type: str
    raw: bytes
    blobs: tuple[Digest, ...] = ()
    manifests: tuple[Digest, ...] = ()
    subject: str = ""
    artifact_type: str = ""
    annotations: tuple[tuple[str, str], ...] = ()


class Referrer(Record):
    """One entry of a referrers answer."""

    digest: str
    media_type: str
    size: int
    artifact_type: str
    annotations: tuple[tuple[str, str], ...]


class Collected(Record):
    """What one garbage collection removed (or would have), and the bytes that came free."""

    uploads: int = 0
    manifests: int = 0
    links: int = 0
    blobs: int = 0
    bytes: int = 0


class Summary(Record):
    """What a repository holds: bytes of blobs and manifests, and when something was last pushed."""

    tags: int
    manifests: int
    bytes: int
    pushed: float


class Blobs(Protocol):
    """The blobs of repositories."""

    def find(self, repository: str, digest: Digest, *, keep: bool = True) -> StoredBlob | None:
        """The blob, if the repository holds it. `keep` keeps it from the garbage collector for the
        grace period: a client that was told that a blob exists will not push it. A driver may
        round the period down by an eighth.
        """

    def mount(self, digest: Digest, *, source: str, target: str) -> bool:
        """Let `target` hold a blob of `source` too; False if `source` does not hold it."""

    def holders(self, digest: Digest) -> Sequence[str]:
        """Names of repositories that hold the blob, a hundred at most."""

    def remove(self, repository: str, digest: Digest) -> bool:
        """Take the blob from the repository; False if it does not hold it."""


class UploadSession(Protocol):
    """An upload, held by one request at a time. Ends with `commit` or `cancel`, or is left with
    `release` and can be opened again, also by another process after this one was killed.
    """

    @property
    def id(self) -> str: ...
    @property
    def offset(self) -> int: ...

    def write(self, data: bytes) -> None:
        """Append. Raises LaminaError of kind EXHAUSTED if the disk is full; `offset` stays true."""

    def cut(self, offset: int) -> None:
        """Forget the bytes from `offset` on."""

    def commit(self, digest: Digest) -> None:
        """Make the bytes a blob of the repository, durably, and end the session.

        Raises:
            Refusal: DIGEST_INVALID or (a quota) DENIED, and the session is gone.
        """

    def cancel(self) -> None:
        """End the session and forget its bytes. Idempotent."""

    def release(self) -> None:
        """Let other requests open the session. Idempotent; nothing after commit or cancel."""


class Uploads(Protocol):
    """Sessions of blobs being pushed."""

    def start(self, repository: str, *, user: str, algorithm: str = "sha256") -> UploadSession:
        """A new session with an id that cannot be guessed.

        Raises:
            Refusal: TOOMANYREQUESTS if the user or the registry has too many.
        """

    def open(self, repository: str, id: str, *, user: str) -> UploadSession:
        """The session, for this request alone.

        Raises:
            Refusal: BLOB_UPLOAD_UNKNOWN for another repository's or another user's too;
                TOOMANYREQUESTS while another request holds it.
        """

    def offset(self, repository: str, id: str, *, user: str) -> int:
        """How many bytes the session has; also while it is held. Raises as `open`."""


class ReadableSession(UploadSession, Protocol):
    """An upload whose bytes can be read while they arrive."""

    def reader(self) -> int:
        """A new descriptor of the bytes, good for `pread` also after the session has ended."""


class ReadableUploads(Protocol):
    """Uploads with readable sessions: an ability of drivers that keep them in files."""

    def start(self, repository: str, *, user: str, algorithm: str = "sha256") -> ReadableSession:
        """As `Uploads.start`."""


class Manifests(Protocol):
    """Manifests, tags and what points to what."""

    def find(self, repository: str, *, tag: str = "", digest: str = "") -> StoredManifest | None:
        """The manifest by tag or digest, if the repository holds it."""

    def put(
        self,
        repository: str,
        manifest: NewManifest,
        *,
        tags: Sequence[str] = (),
        user: str = "",
    ) -> None:
        """Store the manifest and set the tags, in one transaction; `user` is who does it, for a
        driver that keeps a ledger.

        Raises:
            Refusal: MANIFEST_BLOB_UNKNOWN if the repository lacks something that it needs,
                MANIFEST_INVALID if indexes are nested too deeply.
        """

    def remove(self, repository: str, digest: Digest, *, user: str = "") -> bool:
        """Remove the manifest and its tags; False if the repository does not hold it."""

    def untag(self, repository: str, tag: str, *, user: str = "") -> bool:
        """Remove the tag; False if there is none."""

    def tags(self, repository: str, *, n: int, last: str) -> Sequence[str] | None:
        """At most `n` tags after `last`, in alphanumeric order without regard to case; None for a
        repository that holds nothing; a driver may say so too of one without a manifest.
        """

    def referrers(
        self, repository: str, subject: Digest, *, n: int, last: str, artifact_type: str = ""
    ) -> Sequence[Referrer]:
        """At most `n` manifests with that subject, ordered by digest, after `last`."""

    def repositories(self, *, n: int, last: str) -> Sequence[str]:
        """At most `n` names after `last`, in byte order, of repositories that hold a manifest."""


class Upkeep(Protocol):
    """What keeps a store healthy while it is in use."""

    def collect(self, *, untagged_after: float | None = None, dry_run: bool = False) -> Collected:
        """Remove what nothing needs and no lease holds. Requests go on meanwhile.

        Manifests without a tag go `untagged_after` seconds after they were pushed; None keeps them.
        """

    def scrub(self, *, cancelled: Callable[[], bool] = ...) -> Sequence[str]:
        """Read everything; the digests whose bytes are damaged or gone. Requests go on meanwhile.
        Ends early, between two blobs, when `cancelled` says so.
        """


class Overview(Protocol):
    """Sizes and times for the web page. Not every driver can tell them at a bearable price."""

    def summary(self, repository: str) -> Summary:
        """What the repository holds; zeros for one that is not known."""

    def tagged(self, repository: str) -> Mapping[str, float]:
        """When each tag was set."""

    def pushed(self, repository: str, digest: str) -> float:
        """When the manifest was pushed last; 0 if it is not there."""


class Storage(Protocol):
    """A driver. `remote` says that every method waits for a network: none runs on an event loop.

    What it can do besides (`Overview`, `ReadableUploads`, and those of `ledger`) is said in `storage`.
    """

    @property
    def remote(self) -> bool: ...
    @property
    def blobs(self) -> Blobs: ...
    @property
    def uploads(self) -> Uploads: ...
    @property
    def manifests(self) -> Manifests: ...
    @property
    def upkeep(self) -> Upkeep: ...

    def close(self) -> None:
        """Release what the driver holds. Idempotent."""
