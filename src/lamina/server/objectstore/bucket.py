# SPDX-License-Identifier: Apache-2.0
"""An S3 bucket: the only module that knows the library (obstore).

Every call blocks, releases the GIL and may come from any thread. Reads see the last acknowledged
write (S3 since 2020, and its kept imitations). What the store fails at is LaminaError of kind
UNAVAILABLE, which a client is told as 503; its text has no credentials: requests are signed in
headers, and signed addresses are never logged.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from datetime import timedelta

from lamina.errors import Kind, LaminaError
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from typing import Protocol

    from obstore.store import S3Store

    class Writer(Protocol):
        """An object being written in parts; it is there as a whole after `close`."""

        def write(self, data: bytes, /) -> object: ...
        def close(self) -> None: ...


_PIECE = 256 << 10  # bytes of a stream's pieces: larger ones stay in the arenas of many threads
_PAGE = 1000  # keys of one listing request: S3's maximum
# How long a failing request is tried again: below a client's patience, above a failover.
_RETRY_FOR = timedelta(seconds=10)
_MAX_PARTS = 9000  # of a multipart upload; S3 allows 10,000
MIN_PART = 5 << 20  # bytes: the least that S3 takes, since memory is several of them
_AT_ONCE = 2  # parts in flight of one object


class Location(Record):
    """Where a bucket is and how it is reached. Empty credentials: those of the environment.

    `signed_for` is for how many seconds a redirect's address can be used.
    """

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""
    access_key_id: str = ""
    secret_access_key: str = ""
    session_token: str = ""
    path_style: bool = True
    ca_certificate: str = ""
    redirect: bool = False
    signed_for: float = 1200.0

    def __repr__(self) -> str:
        return f"Location(bucket={self.bucket!r}, prefix={self.prefix!r})"  # no credentials


class Found(Record):
    """An object's bytes and its entity tag."""

    raw: bytes
    tag: str


class Entry(Record):
    """One object of a listing; `modified` in POSIX seconds by the store's clock."""

    key: str
    size: int
    tag: str
    modified: float


class Unchanged(Exception):  # an answer, not an error
    """The object still has the entity tag that was given."""


class Bucket:
    """The objects below a location's prefix; keys are relative to it."""

    def __init__(self, location: Location) -> None:
        try:
            import obstore
            from obstore import exceptions
        except ImportError as error:
            raise LaminaError(
                "storage in a bucket needs a package that is not installed: obstore",
                kind=Kind.SYSTEM,
                hint="pip install 'lamina[s3]'",
            ) from error
        self._name = location.bucket
        self._signed_for = timedelta(seconds=location.signed_for)
        self._obstore = obstore
        self._errors = exceptions
        self._store = _open(location)

    def get(self, key: str, *, unless: str = "") -> Found | None:
        """The object; None if it is not there.

        Raises:
            Unchanged: its entity tag is `unless`.
            LaminaError: kind UNAVAILABLE.
        """
        try:
            if unless:
                found = self._obstore.get(self._store, key, options={"if_none_match": unless})
            else:
                found = self._obstore.get(self._store, key)
            return Found(bytes(found.bytes()), found.meta["e_tag"] or "")
        except self._errors.NotModifiedError as error:
            raise Unchanged from error
        except FileNotFoundError as error:
            self._check_bucket(error)
            return None
        except self._errors.BaseError as error:
            raise self._failed(error, "read") from error

    def size(self, key: str) -> int:
        """The object's size in bytes; -1 if it is not there."""
        try:
            return int(self._obstore.head(self._store, key)["size"])
        except FileNotFoundError:  # a bucket that is gone is found at the next read of a document
            return -1
        except self._errors.BaseError as error:
            raise self._failed(error, "read") from error

    def put(self, key: str, data: bytes) -> None:
        """Write an object whose key was never used."""
        try:
            self._obstore.put(self._store, key, data, use_multipart=False)
        except (FileNotFoundError, self._errors.BaseError) as error:
            raise self._failed(error, "write to") from error

    def swap(self, key: str, data: bytes, *, expected: str) -> str | None:
        """The new entity tag, if the object still had the tag `expected` (empty: was not there);
        None if somebody else was first, or if an answer was lost and this change was already made.
        """
        mode = {"e_tag": expected} if expected else "create"
        try:
            done = self._obstore.put(
                self._store,
                key,
                data,
                mode=mode,  # type: ignore[arg-type]  # a TypedDict written as a dict
                use_multipart=False,
            )
            return done["e_tag"] or ""
        except (self._errors.PreconditionError, self._errors.AlreadyExistsError) as error:
            self._check_bucket(error)
            return None
        except (FileNotFoundError, self._errors.BaseError) as error:
            if "ConditionalRequestConflict" in str(error):  # 409: two at once, neither or one won
                return None
            raise self._failed(error, "write to") from error

    def writer(self, key: str, *, size: int) -> Writer:
        """An object of about `size` bytes to be written in parts."""
        part = max(MIN_PART, -(-size // _MAX_PARTS))
        return _Checked(
            self,
            self._obstore.open_writer(self._store, key, buffer_size=part, max_concurrency=_AT_ONCE),
        )

    def read(self, key: str, *, offset: int, length: int) -> Iterator[bytes]:
        """The bytes in pieces.

        Raises:
            LaminaError: kind UNAVAILABLE, also if the object is gone.
        """
        if not length:
            return
        try:
            found = self._obstore.get(
                self._store, key, options={"range": (offset, offset + length)}
            )
            for piece in found.stream(min_chunk_size=_PIECE):
                yield bytes(piece)
        except (FileNotFoundError, self._errors.BaseError) as error:
            raise self._failed(error, "read") from error

    def list(self, prefix: str, *, after: str = "") -> Iterator[Entry]:
        """The objects below `prefix/` whose keys come after `after`, in byte order of keys."""
        try:
            pages = self._obstore.list(self._store, prefix, offset=after or None, chunk_size=_PAGE)
            for page in pages:
                for entry in page:
                    modified: datetime = entry["last_modified"]
                    yield Entry(
                        entry["path"], entry["size"], entry["e_tag"] or "", modified.timestamp()
                    )
        except (FileNotFoundError, self._errors.BaseError) as error:
            raise self._failed(error, "list") from error

    def delete(self, keys: Sequence[str]) -> None:
        """Remove the objects; those that are not there are no error."""
        try:
            for start in range(0, len(keys), _PAGE):
                self._obstore.delete(self._store, list(keys[start : start + _PAGE]))
        except FileNotFoundError:
            return
        except self._errors.BaseError as error:
            raise self._failed(error, "delete from") from error

    def address(self, key: str) -> str:
        """A URL from which anybody can GET the object for a while."""
        try:
            return self._obstore.sign(self._store, "GET", key, self._signed_for)
        except self._errors.BaseError as error:
            raise self._failed(error, "sign an address in") from error

    def probe(self, *, writable: bool = True) -> None:
        """Nothing, if the bucket can be used.

        Raises:
            LaminaError: it is not there, the credentials are refused, or it does not do conditional
                writes, without which two processes would overwrite each other's work.
        """
        for _ in self.list("probe"):
            break
        if not writable:
            return
        key = f"probe/{secrets.token_hex(16)}"
        first = self.swap(key, b"1", expected="")
        try:
            kept = first is not None and self.swap(key, b"2", expected="") is None
            kept = kept and self.swap(key, b"2", expected=first or "") is not None
            kept = kept and self.swap(key, b"3", expected=first or "") is None
        finally:
            with suppress(LaminaError):
                self.delete([key])
        if not kept:
            raise LaminaError(
                f"bucket {self._name} ignores conditions on writes (If-Match, If-None-Match)",
                kind=Kind.UNSUPPORTED,
                hint="use a store that has conditional writes: S3, MinIO, Ceph 19, R2, ...",
            )

    def _check_bucket(self, error: BaseException) -> None:
        if "NoSuchBucket" in str(error):
            raise self._failed(error, "use") from error

    def _failed(self, error: BaseException, verb: str) -> LaminaError:
        text = str(error)
        kind = Kind.UNAVAILABLE
        if "NoSuchBucket" in text:
            return LaminaError(f"bucket {self._name} does not exist", kind=kind)
        refused = (self._errors.PermissionDeniedError, self._errors.UnauthenticatedError)
        if isinstance(error, refused) or "403 Forbidden" in text or "401 Unauthorized" in text:
            return LaminaError(
                f"cannot {verb} bucket {self._name}: the credentials are refused",
                kind=kind,
                hint="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or storage.s3 in the configuration",
            )
        reason = text.partition("\n")[0][:300]
        return LaminaError(f"cannot {verb} bucket {self._name}: {reason}", kind=kind)


class _Checked:
    """A writer whose failures are LaminaError."""

    def __init__(self, bucket: Bucket, writer: Writer) -> None:
        self._bucket = bucket
        self._writer = writer

    def write(self, data: bytes, /) -> None:
        try:
            self._writer.write(data)
        except (OSError, self._bucket._errors.BaseError) as error:
            raise self._bucket._failed(error, "write to") from error

    def close(self) -> None:
        try:
            self._writer.close()
        except (OSError, self._bucket._errors.BaseError) as error:
            raise self._bucket._failed(error, "write to") from error


def _open(location: Location) -> S3Store:
    from obstore.store import S3Store

    given = {
        "access_key_id": location.access_key_id,
        "secret_access_key": location.secret_access_key,
        "session_token": location.session_token,
        "region": location.region,
        "endpoint": _endpoint(location),
    }
    # an endpoint of the environment may say http://, AWS's own never do
    client: dict[str, object] = {"allow_http": not location.endpoint.startswith("https://")}
    if location.ca_certificate:
        with open(location.ca_certificate, "rb") as file:
            client["root_certificate"] = file.read()
    try:
        return S3Store(
            location.bucket,
            prefix=location.prefix or None,
            virtual_hosted_style_request=not location.path_style,
            client_options=client,  # type: ignore[arg-type]  # a TypedDict filled by key
            retry_config={"max_retries": 5, "retry_timeout": _RETRY_FOR},
            **{name: text for name, text in given.items() if text},  # type: ignore[arg-type]  # same
        )
    except Exception as error:
        raise LaminaError(
            f"bucket {location.bucket} cannot be used as it is configured: {type(error).__name__}",
            kind=Kind.INVALID,
            hint="see storage.s3 in the configuration and the AWS_ variables",
        ) from error


def _endpoint(location: Location) -> str:
    """The endpoint as the library wants it: with the bucket's name, if that is in the host."""
    if location.path_style or not location.endpoint:
        return location.endpoint
    scheme, _, host = location.endpoint.partition("://")
    return f"{scheme}://{location.bucket}.{host}"
