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
from lamina.spec.digest import Digest
from lamina.spec.gitref import shown
from lamina.start.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from urllib3 import BaseHTTPResponse, PoolManager

    from lamina.remote.settings import RemoteSettings
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

KIND = "http"  # of the documents
_CHUNK = 1 << 18
_CONNECT_SECONDS = 20.0
_READ_SECONDS = 60.0  # without one byte
_MAX_REDIRECTS = 10  # Go's http.Client, and so BuildKit
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
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

    def __init__(
        self, store: Store, settings: RemoteSettings, *, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._pools: dict[str, PoolManager] = {}

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
                f"digest mismatch for {shown(url)}: {found.digest} (expected: {digest})",
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
        from lamina.store.ports import Document

        body = json.dumps(
            {
                "url": shown(url).partition("?")[0],  # a query may be a signature
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
        response = self._open(url, headers, cancel)
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

    def _open(self, url: str, headers: dict[str, str], cancel: CancelToken) -> BaseHTTPResponse:
        """The response, its body not yet read, after redirects.

        Credentials of the URL go to its own host, port and scheme only.
        """
        from urllib.parse import urljoin, urlsplit

        target = url
        for _ in range(_MAX_REDIRECTS + 1):
            cancel.check()
            response = self._request(url, target, headers)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                return response
            response.close()
            target = urljoin(target, location)
            if urlsplit(target).scheme not in {"http", "https"}:
                text = f"{shown(url)} redirects to {shown(target)}, which is neither http nor https"
                raise LaminaError(text, kind=Kind.INVALID)
        raise LaminaError(
            f"{shown(url)} redirects more than {_MAX_REDIRECTS} times", kind=Kind.INVALID
        )

    def _request(self, origin: str, url: str, headers: dict[str, str]) -> BaseHTTPResponse:
        import urllib3
        from urllib3.exceptions import HTTPError, LocationValueError

        from lamina.system.paths import failure

        plain, credentials = _without_userinfo(url)
        sent = {"User-Agent": "lamina", "Accept-Encoding": "identity", **headers}
        if credentials:
            sent |= urllib3.make_headers(basic_auth=credentials)
        try:
            pool = self._pool(plain)
            return pool.request(
                "GET",
                plain,
                headers=sent,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS),
            )
        except LocationValueError as error:
            raise LaminaError(f"invalid URL {shown(url)!r}", kind=Kind.INVALID) from error
        except HTTPError as error:
            raise _unreachable(origin, error) from error
        except OSError as error:
            text = f"cannot use the CA bundle {self._settings.ca_bundle!r}"
            raise failure(error, text) from error

    def _pool(self, url: str) -> PoolManager:
        import urllib3

        proxy = self._proxy_of(url)
        known = self._pools.get(proxy)
        if known is None:
            bundle = self._settings.ca_bundle or None
            if not proxy:
                known = urllib3.PoolManager(cert_reqs="CERT_REQUIRED", ca_certs=bundle)
            else:
                plain, credentials = _without_userinfo(proxy)
                sent = urllib3.make_headers(proxy_basic_auth=credentials) if credentials else None
                known = urllib3.ProxyManager(
                    plain, proxy_headers=sent, cert_reqs="CERT_REQUIRED", ca_certs=bundle
                )
            self._pools[proxy] = known
        return known

    def _proxy_of(self, url: str) -> str:
        """The proxy for a URL, empty for none."""
        from urllib.parse import urlsplit

        parts = urlsplit(url)
        proxy = self._settings.proxy(f"{parts.scheme}_proxy") or self._settings.proxy("all_proxy")
        if not proxy:
            return ""
        if is_direct(parts.hostname or "", parts.port, self._settings.proxy("no_proxy")):
            return ""
        return proxy if "://" in proxy else f"http://{proxy}"

    # Content --------------------------------------------------------------------------------

    def _save(self, url: str, response: BaseHTTPResponse, cancel: CancelToken) -> Download:
        from urllib3.exceptions import HTTPError

        from lamina.image.blobs import fresh_ingest

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
                raise _unreachable(url, error) from error
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


def is_direct(host: str, port: int | None, no_proxy: str) -> bool:
    """Whether NO_PROXY names the host: `*`, a name (and what is below it), an address, a network,
    each perhaps with a port.
    """
    host = host.lower().rstrip(".")
    for entry in no_proxy.lower().split(","):
        name = entry.strip()
        head, colon, tail = name.rpartition(":")
        if colon and tail.isdigit() and "]" not in tail and head.count(":") == 0:
            if int(tail) != port:
                continue
            name = head
        if name == "*" or (name and _covers(name.strip("[]"), host)):
            return True
    return False


def _covers(name: str, host: str) -> bool:
    import ipaddress

    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        bare = name.removeprefix("*").lstrip(".")
        return host == bare or host.endswith("." + bare)
    try:
        return address in ipaddress.ip_network(name, strict=False)
    except ValueError:
        return False


def _id(url: str) -> str:
    return hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()


def _is_same(response: BaseHTTPResponse, known: Download) -> bool:
    """Whether the server says that nothing changed; some only repeat the ETag."""
    if response.status == _NOT_MODIFIED:
        return True
    etag = response.headers.get("ETag", "")
    same = etag.removeprefix("W/") == known.etag.removeprefix("W/")
    return response.status == 200 and bool(known.etag) and same


def _without_userinfo(url: str) -> tuple[str, str]:
    """The URL without a fragment and `user:password@`, and that text, decoded."""
    from urllib.parse import unquote, urlsplit, urlunsplit

    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise LaminaError(f"invalid URL {shown(url)!r}", kind=Kind.INVALID) from error
    userinfo, _, host = parts.netloc.rpartition("@")
    plain = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
    return plain, unquote(userinfo)


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
        f"cannot download {shown(url)}: invalid response status {response.status}{reason}",
        kind=kinds.get(response.status, Kind.UNAVAILABLE),
    )


def _unreachable(url: str, error: Exception) -> LaminaError:
    """The one cause that is of use, out of what urllib3 wraps around it."""
    cause: BaseException = error
    while (inner := getattr(cause, "reason", None) or cause.__cause__) is not None and isinstance(
        inner, BaseException
    ):
        cause = inner
    text = str(cause)
    hint = ""
    if "CERTIFICATE_VERIFY_FAILED" in text:
        hint = "set a CA bundle: --ca-bundle, LAMINA_CA_BUNDLE or SSL_CERT_FILE"
    for secret in {url, *_parts_to_hide(url)}:
        text = text.replace(secret, shown(secret))
    return LaminaError(
        f"cannot download {shown(url)}: {text or type(cause).__name__}",
        kind=Kind.UNAVAILABLE,
        hint=hint,
    )


def _parts_to_hide(url: str) -> tuple[str, ...]:
    authority = url.partition("://")[2].partition("/")[0]
    return (f"x://{authority}",) if "@" in authority else ()
