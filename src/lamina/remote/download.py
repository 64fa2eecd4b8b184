# SPDX-License-Identifier: Apache-2.0
"""Downloads over HTTP: content into the content store, and a record of what a URL had.

A URL that was downloaded before is asked for with its ETag (or, if it was not changed just before,
its Last-Modified), so an unchanged one costs a round trip. No answer is an error, as in BuildKit:
what a URL had yesterday is not what it has now. Records hold no credentials; a record whose blob is
gone is as good as none.
"""

from __future__ import annotations

import hashlib
import json

from lamina.errors import Kind, LaminaError
from lamina.image.blobs import fresh_ingest
from lamina.redaction import redacted
from lamina.remote.http import unreachable
from lamina.spec.digest import Digest
from lamina.start.record import Record
from lamina.store.ports import Document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from urllib3 import BaseHTTPResponse

    from lamina.remote.http import HttpClient
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

KIND = "http"  # of the documents
_CHUNK = 1 << 18
_NOT_MODIFIED = 304
_RACY_SECONDS = 2  # a file changed as lately may change again within the same second
_MAX_RECORDS = 2000


class Download(Record):
    """What a URL had: its content, and its Last-Modified in POSIX seconds (0: none)."""

    digest: Digest
    mtime: int
    etag: str = ""
    last_modified: str = ""


class Downloader:
    """`clock` gives POSIX seconds. Any thread may call its methods."""

    def __init__(self, store: Store, client: HttpClient, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._client = client
        self._clock = clock

    def current(self, url: str, *, cancel: CancelToken) -> Download:
        """What the URL has now; its content is in the content store.

        Raises:
            LaminaError: NOT_FOUND, DENIED, UNAVAILABLE, INVALID (a redirect loop), EXHAUSTED.
        """
        known = self._known(url)
        return self._fetch(url, known, cancel)

    def pinned(self, url: str, digest: Digest, *, cancel: CancelToken) -> Download:
        """The content of this digest, from the store or from the URL.

        Raises:
            LaminaError: as `current`; INTEGRITY if the URL has something else.
        """
        known = self._known(url)
        if known is not None and known.digest == digest:
            return known
        found = self._fetch(url, None, cancel)
        if found.digest != digest:
            raise LaminaError(
                f"digest mismatch for {url}: {found.digest} (expected: {digest})",
                kind=Kind.INTEGRITY,
            )
        return found

    # Records --------------------------------------------------------------------------------

    def _known(self, url: str) -> Download | None:
        document = self._store.documents.get(KIND, _id(url))
        if document is None:
            return None
        try:
            body = json.loads(document.body)
            digest = Digest.parse(body["digest"])
            found = Download(
                digest, int(body["mtime"]), str(body["etag"]), str(body["last_modified"])
            )
        except (ValueError, KeyError, TypeError, LaminaError):
            return None  # a damaged record
        return found if self._store.content.exists(digest) else None

    def _remember(self, url: str, found: Download) -> None:
        body = json.dumps(
            {
                "url": redacted(url).partition("?")[0],  # a query may be a signature
                "digest": str(found.digest),
                "mtime": found.mtime,
                "etag": found.etag,
                "last_modified": found.last_modified,
            }
        )
        documents, id = self._store.documents, _id(url)
        documents.delete(KIND, id)
        records = documents.list(KIND)
        for old in records[: max(0, len(records) - _MAX_RECORDS + 1)]:
            documents.delete(KIND, old.id)
        try:
            documents.insert(Document(KIND, id, id, body, self._clock()))
        except LaminaError as error:
            if error.kind is not Kind.CONFLICT:  # another build was faster
                raise

    # Requests -------------------------------------------------------------------------------

    def _fetch(self, url: str, known: Download | None, cancel: CancelToken) -> Download:
        headers = {}
        if known is not None and known.etag:
            headers["If-None-Match"] = known.etag
        elif known is not None and known.last_modified:
            headers["If-Modified-Since"] = known.last_modified
        response, _ = self._client.open(url, headers, cancel=cancel)
        try:
            if known is not None and headers and _is_same(response, known):
                return known
            if not 200 <= response.status < 300:
                raise _refused(url, response)
            found = self._save(url, response, cancel)
        finally:
            response.close()
        self._remember(url, found)
        return found

    # Content --------------------------------------------------------------------------------

    def _save(self, url: str, response: BaseHTTPResponse, cancel: CancelToken) -> Download:
        from urllib3.exceptions import HTTPError

        sha = hashlib.sha256()
        stop = getattr(response, "shutdown", response.close)  # wakes a read that waits
        cancel.on_cancel(stop)
        with fresh_ingest(self._store, f"download {_id(url)}") as ingest:
            try:
                for chunk in response.stream(_CHUNK, decode_content=False):
                    cancel.check()
                    sha.update(chunk)
                    ingest.write(chunk)
                cancel.check()
                digest = ingest.commit(digest=Digest("sha256", sha.hexdigest()))
            except HTTPError as error:
                ingest.abort()
                cancel.check()
                raise unreachable(url, error) from error
            except BaseException:
                ingest.abort()
                raise
            finally:
                cancel.forget(stop)
        etag = response.headers.get("ETag", "")
        last_modified = response.headers.get("Last-Modified", "")
        mtime = _seconds(last_modified)
        if mtime > self._clock() - _RACY_SECONDS:
            last_modified = ""
        return Download(digest, mtime, etag, last_modified)


def _id(url: str) -> str:
    return hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()


def _is_same(response: BaseHTTPResponse, known: Download) -> bool:
    """Whether the server says that nothing changed; some only repeat the ETag."""
    if response.status == _NOT_MODIFIED:
        return True
    etag = response.headers.get("ETag", "")
    same = etag.removeprefix("W/") == known.etag.removeprefix("W/")
    return response.status == 200 and bool(known.etag) and same


def _seconds(text: str) -> int:
    """An HTTP date in POSIX seconds, 0 if it is none."""
    from email.utils import parsedate_to_datetime

    try:
        return max(0, int(parsedate_to_datetime(text).timestamp())) if text else 0
    except (ValueError, TypeError, OverflowError):
        return 0


def _refused(url: str, response: BaseHTTPResponse) -> LaminaError:
    kinds = {404: Kind.NOT_FOUND, 410: Kind.NOT_FOUND, 401: Kind.DENIED, 403: Kind.DENIED}
    reason = f" {response.reason}" if response.reason and response.reason.isprintable() else ""
    return LaminaError(
        f"cannot download {url}: invalid response status {response.status}{reason}",
        kind=kinds.get(response.status, Kind.UNAVAILABLE),
    )
